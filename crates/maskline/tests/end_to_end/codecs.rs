//! Voices through the switch between two baresips, each of which knows one codec: where it is the
//! same, it passes through; else it is transcoded. What arrives is compared with what was said, and
//! each presses a key. One holds the other. Both engines carry such calls: ours, and rtpengine.

use std::path::Path;

use crate::rtpengine::{daemon, with_one};
use crate::support::baresip::{Baresip, Codec, G722, OPUS, PCMA, PCMU, Talker, in_call};
use crate::support::expect::{check_rules, fits, told};
use crate::support::ports::Ports;
use crate::support::rtpengine::Rtpengine;
use crate::support::sipp::Transport;
use crate::support::site::{CALLEE, Options, Site};
use crate::support::sound;

/// How long each side is heard.
const SECONDS: usize = 3;

/// What carries the audio.
#[derive(Clone, Copy, PartialEq)]
enum By {
    OurEngine,
    Rtpengine,
}

/// With a file for who is on hold.
fn with_one_and_music(ports: &Ports, folder: &Path, configuration: String) -> String {
    let music = folder.join("hold.wav");
    sound::write(&music, &sound::speech(7, 2), 8_000, 1);
    let hold = format!("[media]\nhold = \"file:{}\"\n", music.display());
    with_one(ports, folder, configuration).replace("[media]\n", &hold)
}

/// Two baresips in a call.
struct Call {
    site: Site,
    a: Baresip,
    b: Baresip,
    /// What A says over and over, and B.
    voices: [Vec<i16>; 2],
    _daemon: Option<Rtpengine>,
}

/// A call between two codecs.
async fn call(name: &str, caller: Codec, callee: Codec, by: By) -> Call {
    let mut options = Options::new(Transport::Udp);
    // baresip sends from whatever address the route has.
    options.trunk_tables = "media_sources = [\"127.0.0.1\"]";
    if by == By::Rtpengine {
        options.edit = with_one_and_music;
    }
    let site = Site::open(&format!("codecs-{name}"), options).await;
    let daemon = match by {
        By::OurEngine => None,
        By::Rtpengine => Some(daemon(&site, 0).await),
    };
    let voices = [1, 4].map(|seed| sound::speech(seed, 2 * SECONDS));
    // baresip hangs up at the end of its file.
    let says = voices.each_ref().map(|voice| voice.repeat(20));
    let talker = |codec, at: usize| Talker {
        codec,
        says: &says[at],
        encrypts: false,
    };
    let (a, b) = in_call(&site, talker(caller, 0), talker(callee, 1)).await;
    Call {
        site,
        a,
        b,
        voices,
        _daemon: daemon,
    }
}

impl Call {
    /// A hangs up, and this was told beside the call's beginning and end.
    async fn ends(mut self, between: &[&str]) {
        self.a.tell("hangup", "").await;
        self.b.logs("terminated").await;
        self.site.receiver.summary().await;
        assert!(self.site.switch.take().unwrap().drain().await.success());
        let received = self.site.receiver.received();
        check_rules(&received, CALLEE);
        let story = told(&received);
        let begins = [
            "A received",
            "B initiated",
            "?B ringing",
            "B connected",
            "A connected",
        ];
        let ends = ["A disconnected 200", "B disconnected 200"];
        let expected = [&begins[..], between, &ends].concat();
        assert!(fits(&story, &expected), "{story:#?}");
    }
}

/// A call between two codecs, and how like the source what arrives has to be.
async fn talks(name: &str, caller: Codec, callee: Codec, by: By, least: f64) {
    let mut call = call(name, caller, callee, by).await;
    let at_b = call.b.hears(SECONDS).await;
    let at_a = call.a.hears(SECONDS).await;
    call.a.tell("sndcode", "5").await;
    call.b.logs("received event: '5' (end=1)").await;
    call.b.tell("sndcode", "#").await;
    call.a.logs("received event: '#' (end=1)").await;

    let voices = call.voices.clone();
    call.ends(&["A pressed 5", "B pressed #"]).await;

    let likeness = [
        sound::likeness(&voices[0], &at_b),
        sound::likeness(&voices[1], &at_a),
    ];
    eprintln!(
        "{name}: A at B {:.3}, B at A {:.3}",
        likeness[0], likeness[1]
    );
    let of_another = sound::likeness(&voices[1], &at_b);
    assert!(
        of_another < 0.7,
        "another voice is as like: {of_another:.3}"
    );
    for (direction, like) in ["A at B", "B at A"].iter().zip(likeness) {
        assert!(like >= least, "{direction}: {like:.3}");
    }
}

macro_rules! row {
    ($name:ident: $caller:ident, $callee:ident, $least:literal) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_our_engine() {
                talks(stringify!($name), $caller, $callee, By::OurEngine, $least).await;
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_rtpengine() {
                let name = concat!(stringify!($name), "-rtpengine");
                talks(name, $caller, $callee, By::Rtpengine, $least).await;
            }
        }
    };
}

row!(pcma_passes_through: PCMA, PCMA, 0.9);
row!(pcmu_passes_through: PCMU, PCMU, 0.9);
row!(g722_passes_through: G722, G722, 0.9);
row!(opus_passes_through: OPUS, OPUS, 0.8);
row!(pcma_calls_pcmu: PCMA, PCMU, 0.9);
row!(pcmu_calls_pcma: PCMU, PCMA, 0.9);
row!(pcma_calls_g722: PCMA, G722, 0.9);
row!(g722_calls_pcma: G722, PCMA, 0.9);
row!(pcmu_calls_g722: PCMU, G722, 0.9);
row!(g722_calls_pcmu: G722, PCMU, 0.9);

/// baresip holds by `sendonly`, and sends nothing then. It records nothing behind a re-INVITE, and
/// tells how much comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_that_is_held_by_a_silent_one_gets_our_notes_and_then_the_other_again() {
    held("hold", By::OurEngine).await;
}

/// rtpengine has no notes of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_phone_that_is_held_by_a_silent_one_gets_the_file_of_rtpengine_and_then_the_other_again()
{
    held("hold-rtpengine", By::Rtpengine).await;
}

async fn held(name: &str, by: By) {
    const FLOWS: u32 = 32_000;
    let mut call = call(name, PCMA, G722, by).await;
    call.b.hears(1).await;
    call.a.tell("hold", "").await;
    call.b
        .carries("notes alone", |sent, received| {
            sent == 0 && received > FLOWS
        })
        .await;
    call.a.tell("resume", "").await;
    call.b
        .carries("voices", |sent, received| sent > FLOWS && received > FLOWS)
        .await;
    // rtpengine plays a file as another source.
    let one_stream = !call.b.log().contains("SSRC changed");
    assert!(one_stream || by == By::Rtpengine, "one stream");
    call.ends(&["A held", "A resumed"]).await;
}
