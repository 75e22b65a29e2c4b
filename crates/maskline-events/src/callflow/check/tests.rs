//! Callflows that are refused, each with the path of its fault, and those that are taken.

#![allow(clippy::unwrap_used, clippy::panic)]

use serde_json::json;

use super::*;

const FLOW: &str = "$.callflow[0]";

fn parse(value: &Value) -> Checked<Callflow> {
    Callflow::parse(value.to_string().as_bytes())
}

fn one(action: &str, params: Value) -> Value {
    json!({"callflow": [{"action": action, "params": params}]})
}

fn capture(extra: Value) -> Value {
    let mut params = json!({"promptMessage": "Your code, please", "voiceProfile": "en-GB-1"});
    for (name, value) in extra.as_object().unwrap() {
        params[name] = value.clone();
    }
    one("sayAndCapture", params)
}

#[test]
fn a_callflow_with_every_action_is_read_with_its_defaults() {
    let flow = parse(&json!({
        "clientActionId": "ride-17",
        "somethingNew": {"x": 1},
        "callflow": [
            {"action": "makeCall", "params": {"source": "6568330330", "destination": "+6591234567", "extra": 1}},
            {"action": "makeCall", "params": {"source": "+6568330330", "destination": "6591234567", "callRecording": true}},
            {"action": "say", "params": {"text": "Hello", "voiceProfile": "en"}},
            {"action": "say", "params": {"text": "Hello", "voiceProfile": "en", "repetition": 3, "speed": 0.5}},
            {"action": "playFile", "params": {"fileUrl": "https://files.example.com/a.wav", "repetition": 2.0}},
            {"action": "sayAndCapture", "params": {"promptMessage": "Code", "voiceProfile": "en", "successMessage": "", "failureMessage": null}},
            {"action": "sayAndCapture", "params": {"promptMessage": "Code", "voiceProfile": "en", "successMessage": "ok",
                "failureMessage": "no", "speed": 2, "minDigits": 4, "maxDigits": 25, "digitTimeout": 2999, "overallTimeout": 3000,
                "completeOnHash": false, "noOfTries": 1}},
            {"action": "hangup"},
            {"action": "hangup", "params": null, "note": 1}
        ]
    }))
    .unwrap();
    let ours = Msisdn::parse("+6568330330").unwrap();
    let theirs = Msisdn::parse("+6591234567").unwrap();
    assert_eq!(flow.client_action_id.as_deref(), Some("ride-17"));
    let make_call = |call_recording| Action::MakeCall {
        source: ours.clone(),
        destination: theirs.clone(),
        call_recording,
    };
    let say = |repetition, speed| Action::Say {
        text: "Hello".to_owned(),
        voice_profile: "en".to_owned(),
        repetition,
        speed,
    };
    let plain = SayAndCapture {
        prompt_message: "Code".to_owned(),
        voice_profile: "en".to_owned(),
        success_message: None,
        failure_message: None,
        speed: 1.0,
        min_digits: None,
        max_digits: None,
        digit_timeout_ms: None,
        overall_timeout_ms: None,
        complete_on_hash: true,
        no_of_tries: 3,
    };
    let full = SayAndCapture {
        success_message: Some("ok".to_owned()),
        failure_message: Some("no".to_owned()),
        speed: 2.0,
        min_digits: Some(4),
        max_digits: Some(25),
        digit_timeout_ms: Some(2999),
        overall_timeout_ms: Some(3000),
        complete_on_hash: false,
        no_of_tries: 1,
        ..plain.clone()
    };
    assert_eq!(
        flow.actions,
        [
            make_call(false),
            make_call(true),
            say(1, 1.0),
            say(3, 0.5),
            Action::PlayFile {
                file_url: "https://files.example.com/a.wav".to_owned(),
                repetition: 2,
            },
            Action::SayAndCapture(Box::new(plain)),
            Action::SayAndCapture(Box::new(full)),
            Action::Hangup,
            Action::Hangup,
        ]
    );
}

#[test]
fn an_empty_callflow_is_valid() {
    for body in [
        json!({"callflow": []}),
        json!({"clientActionId": null, "callflow": []}),
    ] {
        let flow = parse(&body).unwrap();
        assert_eq!((flow.client_action_id, flow.actions.len()), (None, 0));
    }
}

#[test]
fn what_is_no_json_or_too_large_is_a_fault_of_the_root() {
    for body in [
        &b""[..],
        b"OK",
        b"<html>",
        b"{\"callflow\":[]",
        b"{\"callflow\":[]} trailing",
        b"{\"callflow\":[\xff]}",
        b"[]",
        b"null",
        b"17",
        "[".repeat(10_000).as_bytes(),
        format!(
            "{{\"callflow\":[],\"x\":\"{}\"}}",
            "x".repeat(Callflow::MAX_BYTES)
        )
        .as_bytes(),
    ] {
        let fault = Callflow::parse(body).unwrap_err();
        assert_eq!(fault.path, "$", "{fault}");
    }
}

#[test]
fn each_fault_is_found_at_its_path() {
    let call = |source: &str, destination: &str| {
        one(
            "makeCall",
            json!({"source": source, "destination": destination}),
        )
    };
    let say = |extra: (&str, Value)| {
        let mut params = json!({"text": "Hello", "voiceProfile": "en"});
        params[extra.0] = extra.1;
        one("say", params)
    };
    let play = |url: &str| one("playFile", json!({"fileUrl": url}));
    let long = "x".repeat(Callflow::MAX_TEXT_CHARS + 1);
    for (body, path) in [
        (json!({}), "$.callflow"),
        (json!({"callflow": null}), "$.callflow"),
        (json!({"callflow": {}}), "$.callflow"),
        (
            json!({"callflow": vec![json!({"action": "hangup"}); 51]}),
            "$.callflow",
        ),
        (
            json!({"clientActionId": 7, "callflow": []}),
            "$.clientActionId",
        ),
        (
            json!({"clientActionId": "x".repeat(257), "callflow": []}),
            "$.clientActionId",
        ),
        (json!({"callflow": ["hangup"]}), FLOW),
        (json!({"callflow": [{}]}), "$.callflow[0].action"),
        (json!({"callflow": [{"action": 1}]}), "$.callflow[0].action"),
        (
            json!({"callflow": [{"action": "MakeCall"}]}),
            "$.callflow[0].action",
        ),
        (
            json!({"callflow": [{"action": "hangup"}, {"action": "dance"}]}),
            "$.callflow[1].action",
        ),
        (
            json!({"callflow": [{"action": "hangup", "params": []}]}),
            "$.callflow[0].params",
        ),
        (
            json!({"callflow": [{"action": "makeCall"}]}),
            "$.callflow[0].params.source",
        ),
        (call("", "+6591234567"), "$.callflow[0].params.source"),
        (
            call("+6568330330", "0065912"),
            "$.callflow[0].params.destination",
        ),
        (
            call("+6568330330", "+65 9123 4567"),
            "$.callflow[0].params.destination",
        ),
        (
            call("+6568330330", "sip:bob@example.com"),
            "$.callflow[0].params.destination",
        ),
        (
            one(
                "makeCall",
                json!({"source": 6_568_330_330_u64, "destination": "+6591234567"}),
            ),
            "$.callflow[0].params.source",
        ),
        (
            one("makeCall", json!({"source": "+6568330330"})),
            "$.callflow[0].params.destination",
        ),
        (
            one(
                "makeCall",
                json!({"source": "+6568330330", "destination": "+6591234567", "callRecording": "yes"}),
            ),
            "$.callflow[0].params.callRecording",
        ),
        (
            one("say", json!({"voiceProfile": "en"})),
            "$.callflow[0].params.text",
        ),
        (
            one("say", json!({"text": "Hello"})),
            "$.callflow[0].params.voiceProfile",
        ),
        (
            one("say", json!({"text": " ", "voiceProfile": "en"})),
            "$.callflow[0].params.text",
        ),
        (say(("text", json!(long))), "$.callflow[0].params.text"),
        (
            say(("repetition", json!(0))),
            "$.callflow[0].params.repetition",
        ),
        (
            say(("repetition", json!(4))),
            "$.callflow[0].params.repetition",
        ),
        (
            say(("repetition", json!(1.5))),
            "$.callflow[0].params.repetition",
        ),
        (
            say(("repetition", json!(-1))),
            "$.callflow[0].params.repetition",
        ),
        (
            say(("repetition", json!("2"))),
            "$.callflow[0].params.repetition",
        ),
        (say(("speed", json!(0.49))), "$.callflow[0].params.speed"),
        (say(("speed", json!(2.01))), "$.callflow[0].params.speed"),
        (say(("speed", json!("1"))), "$.callflow[0].params.speed"),
        (one("playFile", json!({})), "$.callflow[0].params.fileUrl"),
        (
            play("ftp://files.example.com/a.wav"),
            "$.callflow[0].params.fileUrl",
        ),
        (play("file:///etc/passwd"), "$.callflow[0].params.fileUrl"),
        (play("/a.wav"), "$.callflow[0].params.fileUrl"),
        (play("https:///a.wav"), "$.callflow[0].params.fileUrl"),
        (play("http://:80/a.wav"), "$.callflow[0].params.fileUrl"),
        (play("http://a b/"), "$.callflow[0].params.fileUrl"),
        (
            play(&format!("http://a/{}", "x".repeat(2_048))),
            "$.callflow[0].params.fileUrl",
        ),
        (
            one("sayAndCapture", json!({"voiceProfile": "en"})),
            "$.callflow[0].params.promptMessage",
        ),
        (
            one("sayAndCapture", json!({"promptMessage": "Code"})),
            "$.callflow[0].params.voiceProfile",
        ),
        (
            capture(json!({"maxDigits": 26})),
            "$.callflow[0].params.maxDigits",
        ),
        (
            capture(json!({"maxDigits": 0})),
            "$.callflow[0].params.maxDigits",
        ),
        (
            capture(json!({"minDigits": 4})),
            "$.callflow[0].params.minDigits",
        ),
        (
            capture(json!({"minDigits": 5, "maxDigits": 4})),
            "$.callflow[0].params.minDigits",
        ),
        (
            capture(json!({"digitTimeout": 3000})),
            "$.callflow[0].params.digitTimeout",
        ),
        (
            capture(json!({"digitTimeout": 3000, "overallTimeout": 3000})),
            "$.callflow[0].params.digitTimeout",
        ),
        (
            capture(json!({"overallTimeout": 0})),
            "$.callflow[0].params.overallTimeout",
        ),
        (
            capture(json!({"completeOnHash": false})),
            "$.callflow[0].params.completeOnHash",
        ),
        (
            capture(json!({"completeOnHash": 0})),
            "$.callflow[0].params.completeOnHash",
        ),
        (
            capture(json!({"noOfTries": 0})),
            "$.callflow[0].params.noOfTries",
        ),
        (
            capture(json!({"successMessage": long})),
            "$.callflow[0].params.successMessage",
        ),
        (capture(json!({"speed": 3})), "$.callflow[0].params.speed"),
    ] {
        let fault = parse(&body).unwrap_err();
        assert_eq!(fault.path, path, "{fault}");
    }
}

#[test]
fn the_longest_text_is_counted_in_characters() {
    let text = "ü".repeat(Callflow::MAX_TEXT_CHARS);
    assert!(parse(&one("say", json!({"text": text, "voiceProfile": "de"}))).is_ok());
}

#[test]
fn a_fault_never_quotes_a_phone_number() {
    for body in [
        one(
            "makeCall",
            json!({"source": "+65683303309999999", "destination": "x"}),
        ),
        one(
            "makeCall",
            json!({"source": 6_568_330_330_u64, "destination": "x"}),
        ),
        one("+6568330330", json!({})),
    ] {
        assert!(!parse(&body).unwrap_err().to_string().contains("683303"));
    }
    let fault = Callflow::parse(b"{\"callflow\": +6568330330}").unwrap_err();
    assert!(!fault.to_string().contains("683303"));
}
