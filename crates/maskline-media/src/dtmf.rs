//! Key presses as telephone-events (RFC 4733): one report per press, whatever the network does.
//!
//! What lives elsewhere: which payload type carries them ([`crate::command::PayloadMap`]).

/// How far behind the current press a packet may lie and still be a late one, in clock ticks:
/// 10 s at 8 kHz. Further away it can only be a new timeline.
const LATE_TICKS: u32 = 80_000;

/// The longest duration that one segment of a press expresses (RFC 4733 §2.5.1.3).
const SEGMENT_TICKS: u32 = 0xffff;

/// The most events that are read from one packet (RFC 4733 §2.5.1.5 lets several share one).
const EVENTS_PER_PACKET: usize = 4;

/// One event as a packet carries it (RFC 4733 §2.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TelephoneEvent {
    /// The event code; 0-15 are keys.
    pub code: u8,
    /// The end bit: the key was released.
    pub end: bool,
    /// Power level in -dBm0, 0-63.
    pub volume: u8,
    /// How long the press lasts so far, in clock ticks.
    pub duration: u16,
}

impl TelephoneEvent {
    /// Reads the four bytes of one event.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 4]) -> Self {
        let [code, flags, d0, d1] = bytes;
        Self {
            code,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([d0, d1]),
        }
    }

    /// The four bytes of the event.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 4] {
        let [d0, d1] = self.duration.to_be_bytes();
        let end = if self.end { 0x80 } else { 0 };
        [self.code, end | (self.volume & 0x3f), d0, d1]
    }
}

/// The key of an event code (RFC 4733 §3.2), `None` above 15.
#[must_use]
pub const fn digit(code: u8) -> Option<char> {
    match code {
        0..=9 => Some((b'0' + code) as char),
        10 => Some('*'),
        11 => Some('#'),
        12..=15 => Some((b'A' + code - 12) as char),
        _ => None,
    }
}

/// The event code of a key, `None` for what is no key.
#[must_use]
pub const fn code(digit: char) -> Option<u8> {
    match digit {
        '0'..='9' => Some(digit as u8 - b'0'),
        '*' => Some(10),
        '#' => Some(11),
        'A'..='D' => Some(digit as u8 - b'A' + 12),
        _ => None,
    }
}

/// Follows the presses of one incoming stream.
#[derive(Clone, Debug, Default)]
pub struct DtmfReceiver {
    current: Option<Segment>,
    ssrc: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    code: u8,
    timestamp: u32,
    duration: u32,
    /// The timestamp of the press's first segment.
    press: u32,
    /// What earlier segments of the press lasted.
    before: u32,
    ended: bool,
}

impl DtmfReceiver {
    /// Takes the payload of a telephone-event packet and says which keys it newly pressed, mostly
    /// none or one, never more than four.
    ///
    /// A press is new at the first packet of its timestamp, be it the start, an update or the end.
    /// Not new are: repetitions, packets that arrive after those of a later press, and the next
    /// segment of a press that outlasts what a duration can express. Other events than keys and
    /// payloads that are cut short are passed over.
    pub fn on_event(
        &mut self,
        ssrc: u32,
        timestamp: u32,
        payload: &[u8],
    ) -> impl Iterator<Item = char> + use<> {
        if self.ssrc != Some(ssrc) {
            self.ssrc = Some(ssrc);
            self.current = None;
        }
        let mut pressed = [None; EVENTS_PER_PACKET];
        let mut start = timestamp;
        let (events, _) = payload.as_chunks::<4>();
        for (slot, bytes) in pressed.iter_mut().zip(events) {
            let event = TelephoneEvent::from_bytes(*bytes);
            *slot = self.on_segment(start, event);
            start = start.wrapping_add(u32::from(event.duration));
        }
        pressed.into_iter().flatten()
    }

    /// The latest press: its key, how many clock ticks it lasts so far, and whether it is over.
    #[must_use]
    pub fn latest(&self) -> Option<(char, u32, bool)> {
        let segment = self.current?;
        let ticks = segment.before.saturating_add(segment.duration);
        Some((digit(segment.code)?, ticks, segment.ended))
    }

    /// The timestamp with which the latest press began, if this is one of its segments.
    #[must_use]
    pub fn press_of(&self, timestamp: u32) -> Option<u32> {
        let segment = self.current.filter(|it| it.timestamp == timestamp)?;
        Some(segment.press)
    }

    fn on_segment(&mut self, timestamp: u32, event: TelephoneEvent) -> Option<char> {
        let digit = digit(event.code)?;
        let duration = u32::from(event.duration);
        let arrived = Segment {
            code: event.code,
            timestamp,
            duration,
            press: timestamp,
            before: 0,
            ended: event.end,
        };
        let Some(current) = &mut self.current else {
            self.current = Some(arrived);
            return Some(digit);
        };
        let ahead = timestamp.wrapping_sub(current.timestamp);
        if ahead == 0 {
            if current.code == event.code {
                current.duration = current.duration.max(duration);
                current.ended |= event.end;
            }
            return None;
        }
        if ahead.wrapping_neg() <= LATE_TICKS {
            return None;
        }
        let goes_on = current.code == event.code
            && !current.ended
            && (ahead == current.duration || ahead == SEGMENT_TICKS);
        let before = current.before.saturating_add(ahead);
        *current = Segment {
            press: if goes_on { current.press } else { timestamp },
            before: if goes_on { before } else { 0 },
            ..arrived
        };
        (!goes_on).then_some(digit)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(digit: char, end: bool, duration: u16) -> [u8; 4] {
        TelephoneEvent {
            code: code(digit).unwrap(),
            end,
            volume: 10,
            duration,
        }
        .to_bytes()
    }

    /// The packets of one press: one at its start, an update each 20 ms, three ends.
    fn press(digit: char, start: u32, updates: u16) -> Vec<(u32, [u8; 4])> {
        let mut packets: Vec<_> = (1..=updates)
            .map(|n| (start, event(digit, false, n * 160)))
            .collect();
        packets.extend([(start, event(digit, true, (updates + 1) * 160)); 3]);
        packets
    }

    fn heard(packets: impl IntoIterator<Item = (u32, [u8; 4])>) -> String {
        let mut receiver = DtmfReceiver::default();
        packets
            .into_iter()
            .flat_map(|(timestamp, payload)| receiver.on_event(1, timestamp, &payload))
            .collect()
    }

    #[test]
    fn every_key_has_its_code_and_back() {
        let keys: String = (0..=u8::MAX).filter_map(digit).collect();
        assert_eq!(keys, "0123456789*#ABCD");
        for key in keys.chars() {
            assert_eq!(digit(code(key).unwrap()), Some(key));
        }
        assert_eq!(code('a'), None);
    }

    #[test]
    fn a_press_is_reported_at_its_first_packet_only() {
        let mut receiver = DtmfReceiver::default();
        let reports: Vec<String> = press('5', 1_000, 3)
            .into_iter()
            .map(|(timestamp, payload)| receiver.on_event(1, timestamp, &payload).collect())
            .collect();
        assert_eq!(reports, ["5", "", "", "", "", ""]);
    }

    #[test]
    fn the_dialling_example_of_the_rfc_is_911() {
        // RFC 4733 §5: presses of 200, 250 and 220 ms at 0, 880 and 1,400 ms, frames of 50 ms.
        let presses = [('9', 0, 1_600), ('1', 7_040, 2_000), ('1', 11_200, 1_760)];
        let packets = presses.into_iter().flat_map(|(digit, start, length)| {
            let updates = (400..length)
                .step_by(400)
                .map(move |duration| (start, event(digit, false, duration)));
            updates.chain([(start, event(digit, true, length)); 3])
        });
        assert_eq!(heard(packets), "911");
    }

    #[test]
    fn lost_start_lost_end_and_repetitions_still_make_one_report_each() {
        let only_the_end = press('1', 1_000, 3).split_off(5);
        let only_the_start: Vec<_> = press('2', 9_000, 3).into_iter().take(1).collect();
        let same_key_again = press('2', 12_000, 2);
        let repeated: Vec<_> = press('#', 20_000, 2)
            .into_iter()
            .flat_map(|packet| [packet, packet])
            .collect();
        let all = [only_the_end, only_the_start, same_key_again, repeated].concat();
        assert_eq!(heard(all), "122#");
    }

    #[test]
    fn ends_that_arrive_after_the_next_press_began_are_late_not_new() {
        let mut packets = press('7', 1_000, 2);
        let end = packets.pop().unwrap();
        packets.extend(press('8', 3_000, 2).into_iter().take(1));
        packets.push(end);
        packets.extend(press('8', 3_000, 2).into_iter().skip(1));
        assert_eq!(heard(packets), "78");
    }

    #[test]
    fn segments_of_a_long_press_are_one_press() {
        // RFC 4733 §2.5.1.3; the second segment's first update is lost, as is the whole tail of
        // the first, so that its last known duration is short.
        let packets = [
            (500, event('*', false, 160)),
            (500, event('*', false, 60_000)),
            (500 + 0xffff, event('*', false, 320)),
            (500 + 0xffff, event('*', false, 0xffff)),
            (500 + 2 * 0xffff, event('*', false, 160)),
            (500 + 2 * 0xffff, event('*', true, 320)),
        ];
        assert_eq!(heard(packets), "*");
        let shorter_segments = [
            (500, event('*', false, 8_000)),
            (8_500, event('*', true, 100)),
        ];
        assert_eq!(heard(shorter_segments), "*");
    }

    #[test]
    fn an_ended_press_is_not_continued_by_one_that_touches_it() {
        let packets = [
            (500, event('4', true, 800)),
            (1_300, event('4', false, 160)),
        ];
        assert_eq!(heard(packets), "44");
    }

    #[test]
    fn several_presses_in_one_packet_are_all_reported() {
        let mut receiver = DtmfReceiver::default();
        let payload = [
            event('1', true, 800),
            event('2', true, 800),
            event('3', false, 160),
        ]
        .concat();
        assert_eq!(
            receiver.on_event(1, 100, &payload).collect::<String>(),
            "123"
        );
        assert_eq!(
            receiver.on_event(1, 1_700, &event('3', true, 400)).count(),
            0
        );
    }

    #[test]
    fn a_new_source_has_a_new_timeline_and_other_events_are_passed_over() {
        let mut receiver = DtmfReceiver::default();
        assert_eq!(
            receiver.on_event(1, 5_000, &event('1', true, 800)).count(),
            1
        );
        assert_eq!(
            receiver.on_event(2, 4_000, &event('1', true, 800)).count(),
            1
        );
        assert_eq!(receiver.on_event(2, 9_000, &[36, 0, 0, 160]).count(), 0);
        assert_eq!(receiver.on_event(2, 9_000, &[1, 0, 0]).count(), 0);
        assert_eq!(receiver.on_event(2, 9_000, &[]).count(), 0);
    }

    proptest! {
        /// As long as one packet of each press gets through, duplicated or not, all are reported.
        #[test]
        fn loss_and_repetition_never_lose_or_double_a_press(
            keys in proptest::collection::vec(0u8..16, 1..20),
            fates in proptest::collection::vec((any::<bool>(), any::<bool>()), 180),
            start: u32,
        ) {
            let mut packets = Vec::new();
            let mut fates = fates.into_iter();
            for (n, key) in (0u32..).zip(&keys) {
                let press = press(digit(*key).unwrap(), start.wrapping_add(n * 2_400), 4);
                let kept = press.len() - 1;
                for (i, packet) in press.into_iter().enumerate() {
                    let (lost, repeated) = fates.next().unwrap_or((false, false));
                    if !lost || i == kept {
                        packets.push(packet);
                    }
                    if repeated && !lost {
                        packets.push(packet);
                    }
                }
            }
            let expected: String = keys.iter().filter_map(|key| digit(*key)).collect();
            prop_assert_eq!(heard(packets), expected);
        }

        #[test]
        fn arbitrary_payloads_report_at_most_four_keys(
            packets in proptest::collection::vec(
                (any::<u32>(), any::<u32>(), proptest::collection::vec(any::<u8>(), 0..40)), 0..50),
        ) {
            let mut receiver = DtmfReceiver::default();
            for (ssrc, timestamp, payload) in packets {
                prop_assert!(receiver.on_event(ssrc, timestamp, &payload).count() <= 4);
            }
        }
    }
}
