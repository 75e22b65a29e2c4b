//! Sound that a call can carry, out of a file of somebody else.
//!
//! A file is an ordinary input, whatever is in it: the work for it is bounded by its size and by
//! [`Sound::LONGEST`], the memory by the latter, and what can't be played whole is a fault.
//!
//! Pure. What lives elsewhere: fetching files, and keeping them.

use std::fmt;
use std::io::{Cursor, ErrorKind};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use symphonia::core::codecs::audio::{AudioDecoder, AudioDecoderOptions};
use symphonia::core::common::Limit;
use symphonia::core::errors::Error;
use symphonia::core::formats::probe::Hint;
use symphonia::core::formats::{FormatOptions, FormatReader, Track, TrackType};
use symphonia::core::io::{MediaSourceStream, MediaSourceStreamOptions};
use symphonia::core::meta::MetadataOptions;

use crate::resample::Resampling;

/// Samples a second of a [`Sound`], in Hz: what G.722 carries; G.711 carries half of it.
pub const RATE: u32 = 16_000;

/// One channel at [`RATE`], 16 bits a sample.
#[derive(Clone, PartialEq, Eq)]
pub struct Sound {
    samples: Vec<i16>,
}

impl fmt::Debug for Sound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sound({:?})", self.length())
    }
}

/// Why a file can't be played. Its text holds nothing of the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SoundFault {
    /// It is none of what is understood.
    #[error("is neither WAV nor MP3")]
    Unknown,
    /// Its codec is not understood.
    #[error("is a WAV file whose encoding is not supported; PCM, A-law and mu-law are")]
    Encoding,
    /// Its sampling rate, in Hz.
    #[error("has a sampling rate of {0} Hz; 4000 to 192000 are supported")]
    Rate(u32),
    /// How many channels it has.
    #[error("has {0} channels; 1 to 8 are supported")]
    Channels(usize),
    /// It ends before its end.
    #[error("is cut off")]
    CutOff,
    /// Parts of it make no sense.
    #[error("is damaged")]
    Broken,
    /// There is nothing to hear in it.
    #[error("has no sound in it")]
    Empty,
    /// It is longer than [`Sound::LONGEST`].
    #[error("is longer than ten minutes")]
    TooLong,
}

impl Sound {
    /// The longest sound.
    pub const LONGEST: Duration = Duration::from_secs(600);
    /// Lowest and highest sampling rate of a file, in Hz.
    const RATES: std::ops::RangeInclusive<u32> = 4_000..=192_000;
    /// Most channels of a file.
    const CHANNELS: usize = 8;

    /// Samples at [`RATE`].
    ///
    /// # Errors
    /// [`SoundFault::Empty`], [`SoundFault::TooLong`].
    pub fn of_samples(samples: Vec<i16>) -> Result<Self, SoundFault> {
        if samples.is_empty() {
            return Err(SoundFault::Empty);
        }
        let sound = Self { samples };
        if sound.length() > Self::LONGEST {
            return Err(SoundFault::TooLong);
        }
        Ok(sound)
    }

    /// Reads a WAV or MP3 file. Its channels are mixed to one.
    ///
    /// # Errors
    /// A [`SoundFault`] if it can't be played whole.
    pub fn of_file(file: Vec<u8>) -> Result<Self, SoundFault> {
        // The decoders are careful, and yet a header made for it overflows one of their sums (checked
        // in debug builds only). Nothing of theirs outlives the attempt.
        catch_unwind(AssertUnwindSafe(|| Self::read(file))).unwrap_or(Err(SoundFault::Broken))
    }

    fn read(file: Vec<u8>) -> Result<Self, SoundFault> {
        let bytes = file.len();
        let source = MediaSourceStream::new(
            Box::new(Cursor::new(file)),
            MediaSourceStreamOptions::default(),
        );
        // Pictures and texts are of no use here.
        let metadata = MetadataOptions::default()
            .limit_tag_bytes(Limit::Maximum(0))
            .limit_visual_bytes(Limit::Maximum(0));
        let mut format = symphonia::default::get_probe()
            .probe(&Hint::new(), source, FormatOptions::default(), metadata)
            .map_err(|_| SoundFault::Unknown)?;
        let track = format
            .default_track(TrackType::Audio)
            .ok_or(SoundFault::Unknown)?;
        let mut reading = Reading::new(track)?;
        // Each packet is a byte at least.
        for _ in 0..=bytes {
            if !reading.read(&mut *format)? {
                return reading.finished();
            }
        }
        Err(SoundFault::Broken)
    }

    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(RATE))
    }

    /// Its samples.
    #[must_use]
    pub fn samples(&self) -> &[i16] {
        &self.samples
    }
}

/// A file that is read.
struct Reading {
    track: u32,
    rate: u32,
    /// Frames that the file says it has.
    promised: Option<u64>,
    decoder: Box<dyn AudioDecoder>,
    /// One packet's samples, channel after channel in turn.
    packet: Vec<f32>,
    mono: Resampling,
    damaged: usize,
}

impl Reading {
    fn new(track: &Track) -> Result<Self, SoundFault> {
        let params = track
            .codec_params
            .as_ref()
            .and_then(|params| params.audio())
            .ok_or(SoundFault::Encoding)?;
        let rate = params.sample_rate.ok_or(SoundFault::Broken)?;
        if !Sound::RATES.contains(&rate) {
            return Err(SoundFault::Rate(rate));
        }
        let channels = params.channels.as_ref().map_or(0, |it| it.count());
        checked(channels)?;
        let decoder = symphonia::default::get_codecs()
            .make_audio_decoder(params, &AudioDecoderOptions::default())
            .map_err(|_| SoundFault::Encoding)?;
        Ok(Self {
            track: track.id,
            rate,
            promised: track.num_frames,
            decoder,
            packet: Vec::new(),
            mono: Resampling::from_rate(rate)?,
            damaged: 0,
        })
    }

    /// Reads a packet, if there is one.
    fn read(&mut self, format: &mut dyn FormatReader) -> Result<bool, SoundFault> {
        let packet = match format.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => return Ok(false),
            Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                return Err(SoundFault::CutOff);
            }
            Err(_) => return Err(SoundFault::Broken),
        };
        if packet.track_id != self.track {
            return Ok(true);
        }
        let decoded = match self.decoder.decode(&packet) {
            Ok(decoded) => decoded,
            Err(_) => {
                self.damaged += 1;
                return Ok(true);
            }
        };
        if decoded.spec().rate() != self.rate {
            return Err(SoundFault::Broken);
        }
        let channels = decoded.spec().channels().count();
        checked(channels)?;
        decoded.copy_to_vec_interleaved(&mut self.packet);
        for frame in self.packet.chunks_exact(channels) {
            let sum: f32 = frame.iter().sum();
            self.mono.push(sum / channels as f32)?;
        }
        let longest = Sound::LONGEST.as_secs() as usize * self.rate as usize;
        if self.mono.taken() > longest {
            return Err(SoundFault::TooLong);
        }
        Ok(true)
    }

    fn finished(self) -> Result<Sound, SoundFault> {
        let taken = self.mono.taken() as u64;
        if taken == 0 {
            return Err(if self.damaged > 0 {
                SoundFault::Broken
            } else {
                SoundFault::Empty
            });
        }
        if self.damaged > 0 {
            return Err(SoundFault::Broken);
        }
        if self.promised.is_some_and(|promised| taken < promised) {
            return Err(SoundFault::CutOff);
        }
        Sound::of_samples(self.mono.finished()?)
    }
}

fn checked(channels: usize) -> Result<(), SoundFault> {
    if (1..=Sound::CHANNELS).contains(&channels) {
        return Ok(());
    }
    Err(SoundFault::Channels(channels))
}
