//! Sound that is sent through calls: something like speech, files of it, and how like another it is.

use std::f64::consts::TAU;
use std::fs;
use std::path::Path;

/// Samples a second of everything here that is in memory.
pub const RATE: usize = 8_000;
/// How much is compared at once: 200 ms.
const WINDOW: usize = 1_600;
/// 100 ms.
const SLIP: usize = 800;

/// Something like speech: a gliding pitch, its harmonics up to 3.2 kHz under two moving formants, in
/// syllables. No two moments of it are alike, and another seed is another voice.
pub fn speech(seed: u32, seconds: usize) -> Vec<i16> {
    let voice = f64::from(seed);
    let mut phase = 0.0_f64;
    let mut noise = seed;
    let sample = |n: usize| {
        let t = n as f64 / RATE as f64;
        let pitch = 120.0
            + 15.0 * voice
            + 40.0 * (TAU * 0.31 * t + voice).sin()
            + 15.0 * (TAU * 1.7 * t).sin();
        phase += TAU * pitch / RATE as f64;
        let formants = [
            (500.0 + 250.0 * (TAU * (0.5 + 0.13 * voice) * t).sin(), 1.0),
            (1_600.0 + 500.0 * (TAU * 0.83 * t + voice).sin(), 0.5),
        ];
        let mut harmonics = 0.0;
        let mut k = 1.0;
        while k * pitch < 3_200.0 {
            let loud: f64 = formants
                .iter()
                .map(|(centre, gain)| gain * (-((k * pitch - centre) / 250.0).powi(2)).exp())
                .sum();
            harmonics += (k * phase).sin() * (0.03 + loud);
            k += 1.0;
        }
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let breath = f64::from(noise >> 16) / 65_536.0 - 0.5;
        let syllable = 0.25 + 0.75 * (TAU * 1.9 * t + (TAU * 0.6 * t).sin()).sin().powi(2);
        (syllable * (harmonics * 4_500.0 + breath * 200.0)).clamp(-32_000.0, 32_000.0) as i16
    };
    (0..seconds * RATE).map(sample).collect()
}

/// Writes a WAV file at a multiple of 8 kHz, the same on each channel.
pub fn write(path: &Path, samples: &[i16], rate: u32, channels: u16) {
    let times = rate as usize / RATE;
    let next = samples.iter().skip(1).chain(samples.last());
    let data: Vec<u8> = samples
        .iter()
        .zip(next)
        .flat_map(|(from, to)| {
            let (from, to) = (f64::from(*from), f64::from(*to));
            (0..times).map(move |n| (from + (to - from) * n as f64 / times as f64) as i16)
        })
        .flat_map(|sample| std::iter::repeat_n(sample.to_le_bytes(), channels.into()))
        .flatten()
        .collect();
    let frame = 2 * channels;
    let mut wav = Vec::new();
    let length = data.len() as u32;
    wav.extend(b"RIFF");
    wav.extend((length + 36).to_le_bytes());
    wav.extend(b"WAVEfmt \x10\0\0\0\x01\0");
    wav.extend(channels.to_le_bytes());
    wav.extend(rate.to_le_bytes());
    wav.extend((rate * u32::from(frame)).to_le_bytes());
    wav.extend(frame.to_le_bytes());
    wav.extend(b"\x10\0data");
    wav.extend(length.to_le_bytes());
    wav.extend(data);
    fs::write(path, wav).unwrap();
}

/// Reads a WAV file that may still be written, at 8 kHz, the first channel.
pub fn read(path: &Path, rate: u32, channels: u16) -> Vec<i16> {
    let wav = fs::read(path).unwrap();
    let Some(data) = wav.windows(4).position(|it| it == b"data") else {
        return Vec::new();
    };
    let samples = wav.get(data + 8..).unwrap_or_default().chunks_exact(2);
    samples
        .map(|it| i16::from_le_bytes([it[0], it[1]]))
        .step_by(rate as usize / RATE * usize::from(channels))
        .collect()
}

/// How like the source what was heard is, 0.0-1.0: the median of the normalised correlation of
/// 200 ms each, each at the delay where it is best. So a phone's buffer may slip: by 100 ms from the
/// middle of the recording, whose delay is looked for in the whole source.
pub fn likeness(source: &[i16], heard: &[i16]) -> f64 {
    let windows: Vec<&[i16]> = heard.chunks_exact(WINDOW).collect();
    let loud = |n: &usize| energy(windows[*n]) > WINDOW as f64 * 10_000.0;
    let middle = windows.len() / 2;
    let Some(anchor) = (middle..windows.len()).find(loud) else {
        return 0.0;
    };
    let ends = source.len() - WINDOW;
    let (_, begins) = best(source, windows[anchor], 0, ends);
    let mut likes: Vec<f64> = (0..windows.len())
        .filter(loud)
        .filter_map(|n| {
            let expected = (begins + n * WINDOW).checked_sub(anchor * WINDOW)?;
            let (from, to) = (expected.saturating_sub(SLIP), (expected + SLIP).min(ends));
            (from < to).then(|| best(source, windows[n], from, to).0)
        })
        .collect();
    likes.sort_by(f64::total_cmp);
    likes.get(likes.len() / 2).copied().unwrap_or(0.0)
}

/// Where in a part of the source a window fits best, after how well.
fn best(source: &[i16], window: &[i16], from: usize, to: usize) -> (f64, usize) {
    let coarse = |start: &usize| {
        let source = source[*start..*start + WINDOW].iter().step_by(4);
        let pairs = source.zip(window.iter().step_by(4));
        pairs
            .map(|(a, b)| i64::from(*a) * i64::from(*b))
            .sum::<i64>()
    };
    let mut starts: Vec<(i64, usize)> = (from..to)
        .step_by(2)
        .map(|start| (coarse(&start), start))
        .collect();
    starts.sort_unstable();
    let likely = starts.iter().rev().take(20);
    let near = likely.flat_map(|(_, start)| start.saturating_sub(1)..=*start + 1);
    near.filter(|start| start + WINDOW <= source.len())
        .map(|start| (correlation(&source[start..start + WINDOW], window), start))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .unwrap_or_default()
}

fn energy(samples: &[i16]) -> f64 {
    samples.iter().map(|it| f64::from(*it).powi(2)).sum()
}

fn correlation(one: &[i16], other: &[i16]) -> f64 {
    let pairs = one.iter().zip(other);
    let product: f64 = pairs.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
    product / (energy(one) * energy(other)).sqrt().max(1.0)
}
