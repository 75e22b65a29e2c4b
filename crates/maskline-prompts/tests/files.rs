//! Files of others, good and bad.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::fs;
use std::io::Cursor;
use std::process::Command;
use std::time::Duration;

use hound::{SampleFormat, WavSpec, WavWriter};
use maskline_prompts::{Sound, SoundFault, sound};
use proptest::prelude::*;

/// A tone in each channel, in Hz; 0 is silence.
fn wav(rate: u32, bits: u16, hz: &[f64], seconds: f64) -> Vec<u8> {
    let float = bits == 32;
    let spec = WavSpec {
        channels: hz.len() as u16,
        sample_rate: rate,
        bits_per_sample: bits,
        sample_format: if float {
            SampleFormat::Float
        } else {
            SampleFormat::Int
        },
    };
    let mut file = Cursor::new(Vec::new());
    let mut writer = WavWriter::new(&mut file, spec).unwrap();
    for n in 0..(seconds * f64::from(rate)) as u32 {
        let time = f64::from(n) / f64::from(rate);
        for hz in hz {
            let sample = 0.5 * (std::f64::consts::TAU * hz * time).sin();
            if float {
                writer.write_sample(sample as f32).unwrap();
            } else {
                let full = f64::from(1_u32 << (bits - 1));
                writer.write_sample((sample * full) as i32).unwrap();
            }
        }
    }
    writer.finalize().unwrap();
    file.into_inner()
}

/// What `lame` makes of a WAV file.
fn mp3(wav: &[u8], options: &[&str]) -> Vec<u8> {
    // It goes back to the beginning of the file to write its length.
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    fs::write(&from, wav).unwrap();
    let mut lame = Command::new("lame");
    lame.arg("--quiet").args(options).args([&from, &to]);
    assert!(lame.status().unwrap().success());
    fs::read(to).unwrap()
}

/// The amplitude of a tone in the middle of a sound, and that of all of it, of 1.
fn heard(sound: &Sound, hz: f64) -> (f64, f64) {
    let all = sound.samples();
    let part = &all[all.len() / 4..all.len() * 3 / 4];
    let (mut re, mut im, mut energy) = (0.0, 0.0, 0.0);
    for (n, sample) in part.iter().enumerate() {
        let phase = std::f64::consts::TAU * hz * n as f64 / f64::from(sound::RATE);
        let sample = f64::from(*sample) / 32_767.0;
        re += sample * phase.cos();
        im += sample * phase.sin();
        energy += sample * sample;
    }
    let count = part.len() as f64;
    (2.0 * re.hypot(im) / count, (2.0 * energy / count).sqrt())
}

fn assert_tone(file: Vec<u8>, hz: f64, amplitude: f64, what: &str) {
    let sound = Sound::of_file(file).unwrap_or_else(|fault| panic!("{what} {fault}"));
    let off = sound.length().as_secs_f64() - 1.0;
    assert!(off.abs() < 0.2, "{what}: {off} s too long");
    let (tone, all) = heard(&sound, hz);
    assert!((tone - amplitude).abs() < 0.03, "{what}: {tone}");
    assert!(all - tone < 0.01, "{what}: {all} and of the tone {tone}");
}

#[test]
fn wav_of_any_usual_kind_is_played_as_it_is() {
    for rate in [8_000, 11_025, 16_000, 22_050, 44_100, 48_000, 96_000] {
        assert_tone(
            wav(rate, 16, &[1_000.0], 1.0),
            1_000.0,
            0.5,
            &rate.to_string(),
        );
    }
    for bits in [8, 24, 32] {
        let what = format!("{bits} bits");
        assert_tone(wav(44_100, bits, &[440.0, 440.0], 1.0), 440.0, 0.5, &what);
    }
}

#[test]
fn channels_are_mixed_in_equal_parts() {
    for silent in 1..8 {
        let mut channels = vec![0.0; silent];
        channels.push(700.0);
        let share = 0.5 / channels.len() as f64;
        assert_tone(
            wav(16_000, 16, &channels, 1.0),
            700.0,
            share,
            "one of several",
        );
    }
}

#[test]
fn what_a_call_can_t_carry_is_filtered_out_and_folds_back_nowhere() {
    for hz in [8_500.0, 12_000.0, 15_000.0, 20_000.0] {
        let sound = Sound::of_file(wav(48_000, 16, &[hz], 1.0)).unwrap();
        let (_, all) = heard(&sound, 1_000.0);
        assert!(all < 0.001, "{hz} Hz: {all}");
    }
    for (hz, rate) in [(100.0, 8_000), (3_700.0, 8_000), (6_800.0, 44_100)] {
        let (tone, all) = heard(&Sound::of_file(wav(rate, 16, &[hz], 1.0)).unwrap(), hz);
        assert!(
            tone > 0.48 && all - tone < 0.001,
            "{hz} Hz of {rate}: {tone} of {all}"
        );
    }
}

#[test]
fn mp3_is_played_with_and_without_tags() {
    let stereo = wav(44_100, 16, &[1_000.0, 1_000.0], 1.0);
    let mono = wav(16_000, 16, &[1_000.0], 1.0);
    for (wav, options) in [
        (&stereo, &[][..]),
        (&stereo, &["-t", "--cbr", "-b", "64"]),
        (&stereo, &["-V", "9"]),
        (&stereo, &["--id3v2-only", "--tt", "A title"]),
        (&stereo, &["--id3v1-only", "--tt", "A title"]),
        (&mono, &["-m", "m", "-b", "32"]),
        (&mono, &["-m", "m", "--resample", "8", "-b", "16"]),
    ] {
        assert_tone(mp3(wav, options), 1_000.0, 0.5, &format!("{options:?}"));
    }
    // A picture of 200 kB before the music (ID3v2.3, APIC).
    let mut file = b"ID3\x03\0\0".to_vec();
    let picture = [&b"\0image/jpeg\0\x03\0"[..], &[7; 200_000]].concat();
    let frame = picture.len() as u32;
    let whole = frame + 10;
    file.extend([21, 14, 7, 0].map(|shift| (whole >> shift) as u8 & 0x7f));
    file.extend(b"APIC");
    file.extend(frame.to_be_bytes());
    file.extend([0, 0]);
    file.extend(picture);
    file.extend(mp3(&stereo, &["--cbr"]));
    assert_tone(file, 1_000.0, 0.5, "a picture");
}

/// The header of a WAV file.
fn header(format: u16, channels: u16, rate: u32, align: u16, bits: u16, data: u32) -> Vec<u8> {
    let mut file = b"RIFF".to_vec();
    file.extend(data.saturating_add(36).to_le_bytes());
    file.extend(b"WAVEfmt ");
    file.extend(16_u32.to_le_bytes());
    file.extend(format.to_le_bytes());
    file.extend(channels.to_le_bytes());
    file.extend(rate.to_le_bytes());
    file.extend(rate.saturating_mul(align.into()).to_le_bytes());
    file.extend(align.to_le_bytes());
    file.extend(bits.to_le_bytes());
    file.extend(b"data");
    file.extend(data.to_le_bytes());
    file
}

fn with_data(mut header: Vec<u8>, octets: usize) -> Vec<u8> {
    header.resize(header.len() + octets, 0);
    header
}

#[test]
fn hostile_files_are_faults() {
    let good = wav(8_000, 16, &[300.0], 2.0);
    let tagged = mp3(&wav(44_100, 16, &[1_000.0], 3.0), &[]);
    let noise: Vec<u8> = (0..100_000_u32)
        .map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let table: Vec<(&str, Vec<u8>, &[SoundFault])> = vec![
        ("nothing", vec![], &[SoundFault::Unknown]),
        ("one octet", vec![0xff], &[SoundFault::Unknown]),
        (
            "a page",
            b"<html><body>Not found</body></html>".to_vec(),
            &[SoundFault::Unknown],
        ),
        (
            "a big page",
            b"<p>Not found</p>".repeat(20_000),
            &[SoundFault::Unknown],
        ),
        ("noise", noise, &[SoundFault::Unknown, SoundFault::Broken]),
        (
            "an Ogg file",
            [&b"OggS"[..], &[0; 5_000]].concat(),
            &[SoundFault::Unknown],
        ),
        (
            "a WAV head alone",
            good[..30].to_vec(),
            &[SoundFault::Unknown],
        ),
        (
            "a WAV without data",
            good[..44].to_vec(),
            &[SoundFault::CutOff],
        ),
        (
            "a WAV cut in the middle",
            good[..good.len() / 2].to_vec(),
            &[SoundFault::CutOff],
        ),
        (
            "a WAV cut by an octet",
            good[..good.len() - 1].to_vec(),
            &[SoundFault::CutOff],
        ),
        (
            "an MP3 cut in the middle",
            tagged[..tagged.len() / 2].to_vec(),
            &[SoundFault::CutOff],
        ),
        (
            "zero samples",
            header(1, 1, 8_000, 2, 16, 0),
            &[SoundFault::Empty],
        ),
        (
            "1000 channels",
            with_data(header(1, 1_000, 8_000, 2_000, 16, 40_000), 40_000),
            &[SoundFault::Unknown, SoundFault::Channels(1_000)],
        ),
        (
            "nine channels",
            with_data(header(1, 9, 8_000, 18, 16, 18_000), 18_000),
            &[SoundFault::Channels(9), SoundFault::Unknown],
        ),
        (
            "no channel",
            with_data(header(1, 0, 8_000, 0, 16, 4_000), 4_000),
            &[SoundFault::Unknown],
        ),
        (
            "no rate",
            with_data(header(1, 1, 0, 2, 16, 4_000), 4_000),
            &[SoundFault::Rate(0), SoundFault::Unknown],
        ),
        (
            "a rate of 4 GHz",
            with_data(header(1, 1, u32::MAX, 2, 16, 4_000), 4_000),
            &[SoundFault::Rate(u32::MAX)],
        ),
        (
            "no bits",
            with_data(header(1, 1, 8_000, 0, 0, 4_000), 4_000),
            &[SoundFault::Unknown],
        ),
        (
            "17 bits",
            with_data(header(1, 1, 8_000, 3, 17, 3_000), 3_000),
            &[SoundFault::Unknown, SoundFault::Encoding],
        ),
        (
            "ADPCM",
            with_data(header(0x11, 1, 8_000, 256, 4, 4_096), 4_096),
            &[SoundFault::Unknown, SoundFault::Encoding],
        ),
        (
            "4 GiB of data",
            with_data(header(1, 1, 8_000, 2, 16, u32::MAX), 4_000),
            &[SoundFault::CutOff],
        ),
        (
            "eleven minutes",
            with_data(header(1, 1, 4_000, 1, 8, 2_640_000), 2_640_000),
            &[SoundFault::TooLong],
        ),
    ];
    for (what, file, expected) in table {
        let fault = Sound::of_file(file).unwrap_err();
        assert!(expected.contains(&fault), "{what}: {fault:?}");
    }
}

#[test]
fn the_longest_sound_is_ten_minutes() {
    let ten = with_data(header(1, 1, 4_000, 1, 8, 2_400_000), 2_400_000);
    assert_eq!(Sound::of_file(ten).unwrap().length(), Sound::LONGEST);
    assert_eq!(Sound::of_samples(vec![]), Err(SoundFault::Empty));
    assert_eq!(
        Sound::of_samples(vec![0; 9_600_001]),
        Err(SoundFault::TooLong)
    );
    let tenth = Sound::of_samples(vec![0; 1_600]).unwrap();
    assert_eq!(tenth.length(), Duration::from_millis(100));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_file_with_anything_changed_is_played_or_refused(
        is_mp3 in any::<bool>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        head in prop::collection::vec((0..128_usize, any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static FILES: std::sync::OnceLock<[Vec<u8>; 2]> = std::sync::OnceLock::new();
        let files = FILES.get_or_init(|| {
            let wav = wav(8_000, 16, &[300.0, 400.0], 0.3);
            [mp3(&wav, &["-b", "32"]), wav]
        });
        let mut file = files[usize::from(!is_mp3)].clone();
        for (at, value) in changes {
            *at.get_mut(&mut file) = value;
        }
        for (at, value) in head {
            file[at] = value;
        }
        if let Some(cut) = cut {
            file.truncate(cut.index(file.len()));
        }
        if let Ok(sound) = Sound::of_file(file) {
            prop_assert!(!sound.samples().is_empty());
            prop_assert!(sound.length() <= Sound::LONGEST);
        }
    }
}
