//! espeak-ng itself.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing)]

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use maskline_prompts::{Espeak, Gender, Speech, SpeechEngine as _, SpeechFault, SpeechProfile};

fn speech(text: &str) -> Speech {
    Speech {
        text: text.to_owned(),
        profile: "en-US-EspeakFemale".to_owned(),
        speed: 1.0,
    }
}

async fn seconds(engine: &Espeak, speech: &Speech) -> f64 {
    engine.speak(speech).await.unwrap().length().as_secs_f64()
}

/// How often a voice swings, in Hz: what repeats best within the range of voices.
fn pitch(samples: &[i16]) -> usize {
    let at = (0..samples.len() - 2_000)
        .step_by(400)
        .max_by_key(|at| {
            samples[*at..at + 1_600]
                .iter()
                .map(|it| i64::from(*it).pow(2))
                .sum::<i64>()
        })
        .unwrap();
    let part = &samples[at..at + 2_000];
    let likeness = |lag: usize| -> i64 {
        (0..1_600)
            .map(|n| i64::from(part[n]) * i64::from(part[n + lag]))
            .sum()
    };
    16_000 / (50..230).max_by_key(|lag| likeness(*lag)).unwrap()
}

#[tokio::test]
async fn it_speaks_with_the_voice_and_at_the_speed_that_were_asked_for() {
    let engine = Espeak::find("espeak-ng").await.unwrap();
    let text = "Your driver is waiting at the corner of the street.";
    let usual = engine.speak(&speech(text)).await.unwrap();
    let length = usual.length().as_secs_f64();
    assert!((2.0..6.0).contains(&length), "{length}");
    let loudest = usual.samples().iter().map(|it| it.unsigned_abs()).max();
    assert!(loudest.unwrap() > 3_000, "{loudest:?}");

    for (speed, least, most) in [(0.5, 1.5, 2.5), (2.0, 0.35, 0.75)] {
        let other = Speech {
            speed,
            ..speech(text)
        };
        let ratio = seconds(&engine, &other).await / length;
        assert!((least..most).contains(&ratio), "{speed}: {ratio}");
    }
    let man = Speech {
        profile: "en-US-EspeakMale".to_owned(),
        ..speech(text)
    };
    let man = engine.speak(&man).await.unwrap();
    let (her, his) = (pitch(usual.samples()), pitch(man.samples()));
    assert!(his < her, "{his} and {her} Hz");
}

#[tokio::test]
async fn its_voices_are_listed_by_locale_and_those_of_others_are_found() {
    let engine = Espeak::find("espeak-ng").await.unwrap();
    let profiles = engine.profiles();
    for (code, description) in [
        ("en-US-EspeakFemale", "English (America)"),
        ("id-ID-EspeakMale", "Indonesian"),
        ("en-GB-EspeakMale", "English (Great Britain)"),
        ("de-DE-EspeakFemale", "German"),
        ("fr-FR-EspeakMale", "French (France)"),
    ] {
        let found = profiles.iter().find(|it| it.code == code);
        assert_eq!(found.unwrap().description, description);
    }
    for (asked, expected) in [
        ("en-US-BenjaminRUS", "en-US-EspeakMale"),
        ("ms-MY-YasminNeural", "ms-MY-EspeakFemale"),
        ("en-SG-LunaNeural", "en-GB-EspeakFemale"),
    ] {
        let nearest = SpeechProfile::nearest(profiles, asked).unwrap();
        assert_eq!(nearest.code, expected);
    }
    assert!(profiles.iter().any(|it| it.gender == Gender::Male));
}

#[tokio::test]
async fn no_text_is_a_command_to_it() {
    let engine = Espeak::find("espeak-ng").await.unwrap();
    let said = seconds(&engine, &speech("hello")).await;
    // Read as commands these would be slower, empty, or a file of this machine.
    for text in [
        "\u{1}20shello",
        "hello\u{0}",
        "[[hello]]",
        "<speak>hello</speak>",
        "-f /etc/passwd hello",
    ] {
        let other = seconds(&engine, &speech(text)).await;
        assert!(
            other >= said * 0.9 && other < 6.0,
            "{text:?}: {other}, and {said}"
        );
    }
    let nothing = engine.speak(&speech("")).await;
    assert!(matches!(nothing, Err(SpeechFault::Sound(_))), "{nothing:?}");
    let unknown = Speech {
        profile: "xx-XX-Nobody".to_owned(),
        ..speech("hello")
    };
    assert!(matches!(
        engine.speak(&unknown).await,
        Err(SpeechFault::Voice)
    ));
}

#[tokio::test]
async fn the_longest_text_is_spoken() {
    let engine = Espeak::find("espeak-ng").await.unwrap();
    let text = "No rider waits here. ".repeat(142);
    assert!(text.len() > 2_950);
    assert!(seconds(&engine, &speech(&text)).await > 120.0);
}

/// A program that stands in for it, and lists a voice.
async fn engine(script: &str) -> (tempfile::TempDir, Result<Espeak, SpeechFault>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("engine");
    let list = "[ \"$1\" = --voices ] && { echo Pty; echo ' 2 en-us --/M English f'; exit; }";
    std::fs::write(&path, format!("#!/bin/sh\n{list}\n{script}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    let engine = Espeak::find(path.to_str().unwrap()).await;
    (folder, engine)
}

#[tokio::test]
async fn an_engine_that_is_missing_fails_or_floods_is_a_fault() {
    let missing = Espeak::find("/nonexistent/espeak-ng").await;
    assert!(matches!(missing, Err(SpeechFault::Start(_))), "{missing:?}");
    for script in [
        "exit 3",
        "cat >/dev/null; echo no sound",
        "exec cat /dev/zero",
        "exec 0<&-; exit 1",
    ] {
        let (_folder, engine) = engine(script).await;
        let started = std::time::Instant::now();
        let fault = engine.unwrap().speak(&speech("hello")).await.unwrap_err();
        let is_known = matches!(fault, SpeechFault::Failed(_) | SpeechFault::Sound(_));
        assert!(is_known, "{script}: {fault:?}");
        assert!(started.elapsed() < Duration::from_secs(19), "{script}");
    }
}
