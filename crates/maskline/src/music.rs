//! Music on hold from a WAV file, read once.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};
use hound::{SampleFormat, WavReader, WavSpec};
use maskline_media::HoldAudio;

/// The longest that is kept: seven megabytes in all codecs together.
const LONGEST: Duration = Duration::from_secs(300);
/// How to make a file that is taken.
const REMEDY: &str = "16-bit PCM at 8000 or 16000 Hz, mono or stereo, is wanted: sox IN.mp3 -b 16 -r 16000 -c 1 OUT.wav";

/// Reads a file.
///
/// # Errors
/// It is not one that can be used: why, and what is wanted.
pub(crate) fn load(path: &Path) -> anyhow::Result<HoldAudio> {
    let file = BufReader::new(File::open(path)?);
    let mut reader = WavReader::new(file).with_context(|| format!("no WAV file; {REMEDY}"))?;
    let WavSpec {
        channels,
        sample_rate,
        bits_per_sample,
        sample_format,
    } = reader.spec();
    let encoding = match sample_format {
        SampleFormat::Int => "PCM",
        SampleFormat::Float => "floating point",
    };
    let taken = sample_format == SampleFormat::Int
        && bits_per_sample == 16
        && matches!(sample_rate, 8_000 | 16_000)
        && matches!(channels, 1 | 2);
    if !taken {
        bail!(
            "is {bits_per_sample}-bit {encoding} at {sample_rate} Hz with {channels} channels; {REMEDY}"
        );
    }
    let seconds = u64::from(reader.duration() / sample_rate);
    if seconds > LONGEST.as_secs() {
        bail!("is {seconds} s long; {} s is the most", LONGEST.as_secs());
    }
    let samples: Result<Vec<i16>, _> = reader.samples::<i16>().collect();
    let samples = samples.context("can't be read to its end")?;
    let mono: Vec<i16> = if channels == 1 {
        samples
    } else {
        let (pairs, _) = samples.as_chunks::<2>();
        let mixed = pairs.iter().map(|[left, right]| left.midpoint(*right));
        mixed.collect()
    };
    if mono.len() < 2 {
        bail!("holds no samples");
    }
    Ok(if sample_rate == 8_000 {
        HoldAudio::at_8_khz(&mono)
    } else {
        HoldAudio::at_16_khz(&mono)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file of so many frames, whose right channel is silent.
    fn file(channels: u16, sample_rate: u32, bits: u16, frames: u32) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let spec = WavSpec {
            channels,
            sample_rate,
            bits_per_sample: bits,
            sample_format: SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(file.path(), spec).unwrap();
        for frame in 0..frames {
            for channel in 0..channels {
                let loud = if channel == 0 { 100 } else { 0 };
                writer.write_sample(loud * (frame % 2) as i16).unwrap();
            }
        }
        writer.finalize().unwrap();
        file
    }

    #[test]
    fn mono_and_stereo_of_both_rates_are_taken_as_long_as_they_are() {
        for channels in [1, 2] {
            for rate in [8_000, 16_000] {
                let audio = load(file(channels, rate, 16, rate).path()).unwrap();
                assert_eq!(audio.length(), Duration::from_secs(1), "{channels} {rate}");
            }
        }
    }

    #[test]
    fn a_file_that_cannot_be_used_says_what_is_wrong_and_what_is_wanted() {
        let fault =
            |file: &tempfile::NamedTempFile| format!("{:#}", load(file.path()).unwrap_err());
        for (made, words) in [
            (file(1, 44_100, 16, 100), "44100 Hz"),
            (file(1, 8_000, 24, 100), "24-bit PCM"),
            (file(6, 8_000, 16, 100), "6 channels"),
            (file(1, 8_000, 16, 8_000 * 301), "301 s long; 300 s"),
            (file(1, 8_000, 16, 0), "no samples"),
        ] {
            let said = fault(&made);
            assert!(said.contains(words), "{words}: {said}");
        }
        let text = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(text.path(), "RIFF").unwrap();
        assert!(fault(&text).contains("no WAV file"), "{}", fault(&text));
        let cut = file(2, 8_000, 16, 800);
        let bytes = std::fs::read(cut.path()).unwrap();
        std::fs::write(cut.path(), &bytes[..bytes.len() - 999]).unwrap();
        assert!(fault(&cut).contains("to its end"), "{}", fault(&cut));
    }
}
