//! espeak-ng, as a process for each text.
//!
//! The text goes by its standard input, where no list of processes shows it.

use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::sync::Semaphore;

use crate::sound::Sound;
use crate::speech::{Speech, SpeechEngine, SpeechFault};
use crate::voices::{Gender, SpeechProfile};

/// Texts that are spoken at once.
const AT_ONCE: usize = 2;
/// How long one text may take, its turn included.
const DEADLINE: Duration = Duration::from_secs(20);
/// Most of what it says: ten minutes at its 22,050 Hz, and the header.
const MOST_BYTES: u64 = 600 * 22_050 * 2 + 1_000;
/// Words a minute as it usually speaks.
const USUAL_SPEED: f32 = 175.0;
/// Octets before the samples of its WAV files.
const HEADER: usize = 44;

/// The usual region of languages that it names without one, and by what name we know them.
const REGIONS: [(&str, &str); 54] = [
    ("af", "af-ZA"),
    ("am", "am-ET"),
    ("ar", "ar-SA"),
    ("az", "az-AZ"),
    ("bg", "bg-BG"),
    ("bn", "bn-BD"),
    ("bs", "bs-BA"),
    ("ca", "ca-ES"),
    ("cmn", "zh-CN"),
    ("cs", "cs-CZ"),
    ("cy", "cy-GB"),
    ("da", "da-DK"),
    ("de", "de-DE"),
    ("el", "el-GR"),
    ("es", "es-ES"),
    ("et", "et-EE"),
    ("fa", "fa-IR"),
    ("fi", "fi-FI"),
    ("ga", "ga-IE"),
    ("gu", "gu-IN"),
    ("he", "he-IL"),
    ("hi", "hi-IN"),
    ("hr", "hr-HR"),
    ("hu", "hu-HU"),
    ("id", "id-ID"),
    ("is", "is-IS"),
    ("it", "it-IT"),
    ("ja", "ja-JP"),
    ("ka", "ka-GE"),
    ("kk", "kk-KZ"),
    ("kn", "kn-IN"),
    ("ko", "ko-KR"),
    ("lt", "lt-LT"),
    ("lv", "lv-LV"),
    ("mk", "mk-MK"),
    ("ml", "ml-IN"),
    ("mr", "mr-IN"),
    ("ms", "ms-MY"),
    ("mt", "mt-MT"),
    ("my", "my-MM"),
    ("nb", "nb-NO"),
    ("ne", "ne-NP"),
    ("nl", "nl-NL"),
    ("pl", "pl-PL"),
    ("pt", "pt-PT"),
    ("ro", "ro-RO"),
    ("ru", "ru-RU"),
    ("sk", "sk-SK"),
    ("sl", "sl-SI"),
    ("sv", "sv-SE"),
    ("ta", "ta-IN"),
    ("th", "th-TH"),
    ("tr", "tr-TR"),
    ("uk", "uk-UA"),
];

/// More of them.
const MORE_REGIONS: [(&str, &str); 5] = [
    ("sw", "sw-KE"),
    ("te", "te-IN"),
    ("ur", "ur-PK"),
    ("vi", "vi-VN"),
    ("yue", "yue-HK"),
];

/// What its voices are varied by.
const VARIANTS: [(&str, &str, Gender); 2] = [
    ("EspeakFemale", "f3", Gender::Female),
    ("EspeakMale", "m3", Gender::Male),
];

/// espeak-ng as it is installed here.
#[derive(Debug)]
pub struct Espeak {
    program: String,
    profiles: Vec<SpeechProfile>,
    /// What each of them is called there.
    voices: Vec<String>,
    turns: Arc<Semaphore>,
}

impl Espeak {
    /// Finds the program by its name, or at its path, and asks for its voices.
    ///
    /// # Errors
    /// [`SpeechFault::Start`] if there is no such program, [`SpeechFault::Failed`] if it names no voice.
    pub async fn find(program: &str) -> Result<Self, SpeechFault> {
        let mut espeak = Self {
            program: program.to_owned(),
            profiles: Vec::new(),
            voices: Vec::new(),
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        };
        let listed = espeak.run(&["--voices"], String::new()).await?;
        for (voice, locale, description) in voices(&String::from_utf8_lossy(&listed.stdout)) {
            for (name, variant, gender) in VARIANTS {
                espeak.voices.push(format!("{voice}+{variant}"));
                espeak.profiles.push(SpeechProfile {
                    code: format!("{locale}-{name}"),
                    locale: locale.clone(),
                    description: description.clone(),
                    gender,
                });
            }
        }
        if espeak.profiles.is_empty() {
            return Err(SpeechFault::Failed("it names no voice".to_owned()));
        }
        Ok(espeak)
    }

    /// Runs it once, to its end or to the deadline.
    async fn run(&self, arguments: &[&str], text: String) -> Result<Output, SpeechFault> {
        let asked = async {
            // Closed by nobody.
            let _turn = self.turns.acquire().await;
            let mut child = Command::new(&self.program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .kill_on_drop(true)
                .spawn()
                .map_err(SpeechFault::Start)?;
            spoken(&mut child, text).await
        };
        let output = tokio::time::timeout(DEADLINE, asked).await;
        output.unwrap_or(Err(SpeechFault::Late(DEADLINE)))
    }
}

/// What it says of a text.
async fn spoken(child: &mut Child, text: String) -> Result<Output, SpeechFault> {
    let failed = |error: std::io::Error| SpeechFault::Failed(error.to_string());
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // Whether it read all of it shows in what it says.
            let _ = stdin.write_all(text.as_bytes()).await;
        }
    };
    let read = async {
        let mut said = Vec::new();
        if let Some(stdout) = stdout {
            stdout.take(MOST_BYTES).read_to_end(&mut said).await?;
        }
        Ok(said)
    };
    let ((), said) = tokio::join!(write, read);
    let stdout = said.map_err(failed)?;
    if stdout.len() as u64 >= MOST_BYTES {
        return Err(crate::SoundFault::TooLong.into());
    }
    let status = child.wait().await.map_err(failed)?;
    if !status.success() {
        return Err(SpeechFault::Failed(format!("it ended with {status}")));
    }
    Ok(Output {
        status,
        stdout,
        stderr: Vec::new(),
    })
}

#[async_trait]
impl SpeechEngine for Espeak {
    fn profiles(&self) -> &[SpeechProfile] {
        &self.profiles
    }

    async fn speak(&self, speech: &Speech) -> Result<Sound, SpeechFault> {
        let mut all = self.profiles.iter().zip(&self.voices);
        let voice = all
            .find(|(profile, _)| profile.code == speech.profile)
            .map(|(_, voice)| voice)
            .ok_or(SpeechFault::Voice)?;
        let speed = format!("{:.0}", USUAL_SPEED * speech.speed.clamp(0.5, 2.0));
        let arguments = ["--stdin", "--stdout", "-b", "1", "-v", voice, "-s", &speed];
        let said = self.run(&arguments, plain(&speech.text)).await?;
        // Reading and filtering take milliseconds for each second.
        let sound = tokio::task::spawn_blocking(move || Sound::of_file(with_length(said.stdout)));
        let sound = sound
            .await
            .map_err(|error| SpeechFault::Failed(error.to_string()))?;
        Ok(sound?)
    }
}

/// A text of which nothing is a command to it: not its control characters, and not phonemes in `[[ ]]`.
fn plain(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    text.replace("[[", "[ [")
}

/// It does not know how long its file will be when it begins to write it.
fn with_length(mut file: Vec<u8>) -> Vec<u8> {
    let samples = file.len().saturating_sub(HEADER) / 2 * 2;
    let length = u32::try_from(samples).unwrap_or(u32::MAX);
    if file.get(36..40) == Some(b"data") {
        for (at, value) in [(4, length.saturating_add(36)), (40, length)] {
            if let Some(field) = file.get_mut(at..at + 4) {
                field.copy_from_slice(&value.to_le_bytes());
            }
        }
    }
    file
}

/// Of its list of voices: name there, locale, language in words. Those that it prefers come first.
fn voices(list: &str) -> Vec<(String, String, String)> {
    let mut voices: Vec<_> = list.lines().skip(1).filter_map(listed).collect();
    voices.sort_by_key(|(preference, _)| *preference);
    voices.into_iter().map(|(_, voice)| voice).collect()
}

fn listed(line: &str) -> Option<(u32, (String, String, String))> {
    let mut columns = line.split_whitespace();
    let preference = columns.next()?.parse().ok()?;
    let (voice, _gender, words) = (columns.next()?, columns.next()?, columns.next()?);
    let known = REGIONS.iter().chain(&MORE_REGIONS);
    let known = known.clone().find(|(language, _)| *language == voice);
    let locale = known.map_or_else(|| tag(voice), |(_, locale)| (*locale).to_owned());
    Some((
        preference,
        (voice.to_owned(), locale, words.replace('_', " ")),
    ))
}

/// A language tag as it is usually written: regions in capitals.
fn tag(voice: &str) -> String {
    let parts = voice.split('-').enumerate().map(|(at, part)| {
        if at > 0 && part.len() == 2 {
            part.to_ascii_uppercase()
        } else {
            part.to_owned()
        }
    });
    parts.collect::<Vec<_>>().join("-")
}
