//! From any sampling rate to that of a [`Sound`](crate::Sound), as it comes.

use rubato::audioadapter_buffers::direct::SequentialSlice;
use rubato::{Async, FixedAsync, Resampler, SincInterpolationParameters, WindowFunction};

use crate::sound::{RATE, SoundFault};

/// Frames that are filtered at a time.
const CHUNK: usize = 1_024;
/// Length of the filter, in samples of the lower of both rates: at 16 kHz what lies 300 Hz beyond half of
/// the rate is 100 dB down.
const FILTER: usize = 256;

/// One channel on its way to [`RATE`].
pub(crate) struct Resampling {
    /// `None`: it has the rate already.
    filter: Option<Async<f32>>,
    ratio: f64,
    /// What waits until there is enough of it.
    waiting: Vec<f32>,
    taken: usize,
    /// What the filter gives before the first sample.
    early: usize,
    made: Vec<i16>,
}

impl Resampling {
    /// From this many samples a second.
    pub(crate) fn from_rate(rate: u32) -> Result<Self, SoundFault> {
        let ratio = f64::from(RATE) / f64::from(rate);
        let filter = if rate == RATE {
            None
        } else {
            let window = SincInterpolationParameters::new(FILTER, WindowFunction::BlackmanHarris2);
            let filter = Async::new_sinc(ratio, 1.0, &window, CHUNK, 1, FixedAsync::Input);
            Some(filter.map_err(|_| SoundFault::Rate(rate))?)
        };
        Ok(Self {
            ratio,
            waiting: Vec::new(),
            taken: 0,
            early: filter.as_ref().map_or(0, Resampler::output_delay),
            made: Vec::new(),
            filter,
        })
    }

    /// Samples taken so far.
    pub(crate) const fn taken(&self) -> usize {
        self.taken
    }

    /// Takes the next sample, -1 to 1.
    pub(crate) fn push(&mut self, sample: f32) -> Result<(), SoundFault> {
        self.taken += 1;
        if self.filter.is_none() {
            self.made.push(pcm(sample));
            return Ok(());
        }
        self.waiting.push(sample);
        if self.waiting.len() < CHUNK {
            return Ok(());
        }
        self.filtered()
    }

    fn filtered(&mut self) -> Result<(), SoundFault> {
        let Some(filter) = &mut self.filter else {
            return Ok(());
        };
        let frames = self.waiting.len();
        let chunk =
            SequentialSlice::new(&self.waiting, 1, frames).map_err(|_| SoundFault::Broken)?;
        let out = filter
            .process(&chunk, None)
            .map_err(|_| SoundFault::Broken)?;
        self.waiting.clear();
        for sample in out.take_data() {
            if self.early > 0 {
                self.early -= 1;
            } else {
                self.made.push(pcm(sample));
            }
        }
        Ok(())
    }

    /// All of it, as long as what was taken.
    pub(crate) fn finished(mut self) -> Result<Vec<i16>, SoundFault> {
        let length = (self.taken as f64 * self.ratio).round() as usize;
        while self.made.len() < length {
            // What is still in the filter comes out when silence goes in.
            self.waiting.resize(CHUNK, 0.0);
            self.filtered()?;
        }
        self.made.truncate(length);
        Ok(self.made)
    }
}

/// A sample of 16 bits; what is too loud is cut.
fn pcm(sample: f32) -> i16 {
    (sample * 32_767.0).round() as i16
}
