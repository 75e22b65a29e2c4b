//! SRTP against the vectors of RFC 3711 and of libsrtp, and what a hostile or unlucky network does.

use super::*;

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let byte = |pair: &[u32]| u8::try_from(pair[0] * 16 + pair[1]).unwrap();
    digits.chunks_exact(2).map(byte).collect()
}

/// Master key and salt of RFC 3711 appendix B.3, which libsrtp's own vectors have too.
fn key() -> SrtpKey {
    let bytes = hex("e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
    SrtpKey(bytes.try_into().unwrap())
}

const fn other_key() -> SrtpKey {
    SrtpKey([7; KEY_BYTES])
}

/// Both ends of a leg.
fn ends(suite: SrtpSuite) -> (Protection, Protection) {
    let (ours, theirs) = (key(), other_key());
    let end = |ours, theirs| {
        Protection::new(SrtpKeys {
            suite,
            ours,
            theirs,
        })
    };
    (end(ours, theirs), end(theirs, ours))
}

fn rtp(sequence: u16) -> Vec<u8> {
    let mut packet = vec![0x80, 0x00];
    packet.extend(sequence.to_be_bytes());
    packet.extend([0, 0, 0, 1, 0xca, 0xfe, 0xba, 0xbe]);
    packet.extend([sequence as u8; 160]);
    packet
}

fn sent(from: &mut Protection, sequence: u16) -> Vec<u8> {
    let mut packet = rtp(sequence);
    from.protect_rtp(&mut packet).unwrap();
    packet
}

/// What arrives of a packet.
fn got(at: &mut Protection, packet: &[u8]) -> Result<Vec<u8>, Unprotected> {
    let mut clear = vec![1, 2, 3];
    at.open_rtp(packet, &mut clear).map(|()| clear)
}

#[test]
fn the_key_stream_is_that_of_rfc_3711_b_2() {
    let cipher = Aes128::new_from_slice(&hex("2b7e151628aed2a6abf7158809cf4f3c")).unwrap();
    let counter = hex("f0f1f2f3f4f5f6f7f8f9fafbfcfd0000");
    let mut stream = vec![0; 0xff02 * BLOCK];
    xor_keystream(&cipher, counter.try_into().unwrap(), &mut stream);
    for (block, expected) in [
        (0, "e03ead0935c95e80e166b16dd92b4eb4"),
        (1, "d23513162b02d0f72a43a2fe4a5f97ab"),
        (2, "41e95b3bb0a2e8dd477901e4fca894c0"),
        (0xfeff, "ec8cdf7398607cb0f2d21675ea9ea1e4"),
        (0xff00, "362b7c3c6773516318a077d7fc5073ae"),
        (0xff01, "6a2cc3787889374fbeb4c81b17ba6c44"),
    ] {
        let at = block * BLOCK;
        assert_eq!(stream[at..at + BLOCK], hex(expected), "block {block:x}");
    }
}

#[test]
fn session_keys_are_those_of_rfc_3711_b_3() {
    let keys = SessionKeys::derive(&key(), 0);
    assert_eq!(keys.salt.to_vec(), hex("30cbbc08863d8c85d49db34a9ae1"));
    let expected = Aes128::new_from_slice(&hex("c61e7a93744f39ee10734afe3ff7a087")).unwrap();
    let (mut ours, mut theirs) = ([0; BLOCK], [0; BLOCK]);
    xor_keystream(&keys.cipher, [5; BLOCK], &mut ours);
    xor_keystream(&expected, [5; BLOCK], &mut theirs);
    assert_eq!(ours, theirs);
    let expected = keyed(&hex("cebe321f6ff7716b6fd4ab49af256a156d38baa4"));
    let tag = expected.chain_update(b"said").finalize().into_bytes();
    assert_eq!(keys.tag(b"said", &[])[..], tag[..]);
}

#[test]
fn packets_are_those_that_libsrtp_makes() {
    let (mut protection, _) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let mut packet = hex("800f1234decafbadcafebabe abababababababababababababababab");
    protection.protect_rtp(&mut packet).unwrap();
    let expected = "800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb";
    assert_eq!(packet, hex(expected));
    protection.next_rtcp_index = 1;
    let mut compound = hex("81c8000bcafebabe abababababababababababababababab");
    protection.protect_rtcp(&mut compound).unwrap();
    let expected =
        "81c8000bcafebabe 7128035be487b9bdbef89041f977a5a8 80000001 993e08cd54d6c1230798";
    assert_eq!(compound, hex(expected));
}

#[test]
fn what_one_end_protects_the_other_opens_by_either_suite() {
    for suite in SrtpSuite::ALL {
        let (mut here, mut there) = ends(suite);
        for sequence in 0..300 {
            let packet = sent(&mut here, sequence);
            assert_eq!(packet.len(), 172 + suite.tag_bytes());
            assert_ne!(packet[12..28], rtp(sequence)[12..28], "it is encrypted");
            assert_eq!(got(&mut there, &packet), Ok(rtp(sequence)));
            let back = sent(&mut there, sequence);
            assert_eq!(got(&mut here, &back), Ok(rtp(sequence)));
            assert_ne!(packet, back, "each direction has a key of its own");
        }
        for round in 0_u8..3 {
            let compound = [[0x80, 200, 0, 1, 1, 2, 3, 4], [round; 8]].concat();
            let mut packet = compound.clone();
            here.protect_rtcp(&mut packet).unwrap();
            assert_eq!(packet.len(), 16 + RTCP_OVERHEAD_BYTES);
            let mut clear = Vec::new();
            assert_eq!(there.open_rtcp(&packet, &mut clear), Ok(()));
            assert_eq!(clear, compound);
            let again = there.open_rtcp(&packet, &mut clear);
            assert_eq!(again, Err(Unprotected::Replayed));
        }
    }
}

#[test]
fn extensions_and_contributing_sources_stay_readable_and_are_authenticated() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let mut packet = hex("91 00 0001 00000001 cafebabe 01020304 bede0001 10aa0000 abababab");
    let clear = packet.clone();
    here.protect_rtp(&mut packet).unwrap();
    assert_eq!(packet[..24], clear[..24]);
    let mut forged = packet.clone();
    forged[21] ^= 1;
    assert_eq!(got(&mut there, &forged), Err(Unprotected::NotAuthentic));
    assert_eq!(got(&mut there, &packet), Ok(clear));
}

#[test]
fn a_changed_bit_a_cut_and_another_key_open_nothing_and_disturb_nothing() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag32);
    let packet = sent(&mut here, 1);
    for bit in 0..packet.len() * 8 {
        let mut forged = packet.clone();
        forged[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(
            got(&mut there, &forged),
            Err(Unprotected::NotAuthentic),
            "bit {bit}"
        );
    }
    for length in 0..packet.len() {
        assert!(
            got(&mut there, &packet[..length]).is_err(),
            "{length} bytes"
        );
        let mut clear = Vec::new();
        assert!(there.open_rtcp(&packet[..length], &mut clear).is_err());
        assert!(
            there
                .protect_rtp(&mut packet[..length.min(11)].to_vec())
                .is_err()
        );
    }
    let (mut stranger, _) = ends(SrtpSuite::AesCm128Sha1Tag32);
    stranger.rekey(SrtpKeys {
        ours: SrtpKey([9; KEY_BYTES]),
        ..*stranger.keys()
    });
    let forged = sent(&mut stranger, 2);
    assert_eq!(got(&mut there, &forged), Err(Unprotected::NotAuthentic));
    assert_eq!(got(&mut there, &packet), Ok(rtp(1)));
    assert_eq!(there.incoming.rtp_sources.0.len(), 1);
}

#[test]
fn each_packet_is_taken_once_in_whatever_order_and_an_old_one_never() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let packets: Vec<_> = (1..=400)
        .map(|sequence| sent(&mut here, sequence))
        .collect();
    for at in [5, 3, 9, 4, 130] {
        assert!(got(&mut there, &packets[at]).is_ok(), "{at}");
    }
    for at in [5, 3, 9, 4, 130, 1, 2] {
        assert_eq!(
            got(&mut there, &packets[at]),
            Err(Unprotected::Replayed),
            "{at}"
        );
    }
    assert!(got(&mut there, &packets[6]).is_ok());
    assert!(got(&mut there, &packets[399]).is_ok());
    assert_eq!(got(&mut there, &packets[200]), Err(Unprotected::Replayed));
}

#[test]
fn nothing_else_is_ever_sent_by_the_same_index() {
    let (mut here, _) = ends(SrtpSuite::AesCm128Sha1Tag80);
    sent(&mut here, 7);
    let mut packet = rtp(7);
    packet[20] ^= 1;
    assert_eq!(here.protect_rtp(&mut packet), Err(Unprotected::Replayed));
}

#[test]
fn the_sequence_number_rolls_over_and_late_packets_of_before_are_still_taken() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let mut late = None;
    for number in (500..195_000_u32).step_by(50).chain(195_000..200_000) {
        let packet = sent(&mut here, number as u16);
        if number == 131_050 {
            late = Some(packet);
        } else {
            assert!(got(&mut there, &packet).is_ok(), "{number}");
        }
        if number == 131_100 {
            assert!(got(&mut there, &late.take().unwrap()).is_ok());
        }
    }
    assert_eq!(there.incoming.rtp_sources.0[0].highest >> 16, 3);
}

#[test]
fn a_source_that_is_heard_only_after_its_first_rollover_is_heard() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    sent(&mut here, 65_500);
    let late = sent(&mut here, 65_530);
    let packet = sent(&mut here, 3);
    assert_eq!(got(&mut there, &packet), Ok(rtp(3)));
    assert_eq!(got(&mut there, &late), Ok(rtp(65_530)));
    assert_eq!(got(&mut there, &packet), Err(Unprotected::Replayed));
}

#[test]
fn another_key_goes_on_with_the_rollovers_or_starts_over() {
    for starts_over in [false, true] {
        let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
        for number in (30_000..70_000_u32).step_by(100) {
            let packet = sent(&mut here, number as u16);
            assert!(got(&mut there, &packet).is_ok());
        }
        let old = sent(&mut here, 4_464);
        let keys = SrtpKeys {
            ours: SrtpKey([9; KEY_BYTES]),
            ..*here.keys()
        };
        if starts_over {
            here = Protection::new(keys);
        } else {
            here.rekey(keys);
        }
        there.rekey(SrtpKeys {
            theirs: keys.ours,
            ..*there.keys()
        });
        let packet = sent(&mut here, 4_465);
        assert_eq!(got(&mut there, &packet), Ok(rtp(4_465)), "{starts_over}");
        assert_eq!(got(&mut there, &packet), Err(Unprotected::Replayed));
        assert!(
            got(&mut there, &old).is_err(),
            "the key of before opens nothing"
        );
    }
}

#[test]
fn what_stays_the_same_goes_on_when_the_other_direction_gets_another_key() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let packet = sent(&mut here, 1);
    assert!(got(&mut there, &packet).is_ok());
    there.rekey(SrtpKeys {
        ours: SrtpKey([9; KEY_BYTES]),
        ..*there.keys()
    });
    assert_eq!(got(&mut there, &packet), Err(Unprotected::Replayed));
}

#[test]
fn the_sources_of_a_party_are_bounded() {
    let (mut here, mut there) = ends(SrtpSuite::AesCm128Sha1Tag80);
    for ssrc in 0..100_u8 {
        let mut packet = rtp(1);
        packet[11] = ssrc;
        here.protect_rtp(&mut packet).unwrap();
        assert!(got(&mut there, &packet).is_ok());
    }
    assert_eq!(there.incoming.rtp_sources.0.len(), MAX_SOURCES);
}

#[test]
fn no_key_shows_in_what_is_logged() {
    let (protection, _) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let shown = format!("{protection:?}");
    assert!(
        shown.contains("hidden") && !shown.contains("225") && !shown.contains("e1f9"),
        "{shown}"
    );
}

#[test]
fn a_key_of_ours_that_comes_back_sends_nothing_by_an_index_that_it_used() {
    let (mut here, _) = ends(SrtpSuite::AesCm128Sha1Tag80);
    let first = *here.keys();
    let other = SrtpKeys {
        ours: SrtpKey([9; KEY_BYTES]),
        ..first
    };
    sent(&mut here, 7);
    let mut indices = Vec::new();
    for keys in [first, other, first] {
        here.rekey(keys);
        let mut compound = vec![0x80, 200, 0, 1, 1, 2, 3, 4];
        here.protect_rtcp(&mut compound).unwrap();
        indices.push(compound[8..12].to_vec());
    }
    assert_eq!(here.protect_rtp(&mut rtp(7)), Err(Unprotected::Replayed));
    indices.dedup();
    assert_eq!(indices.len(), 3);
    sent(&mut here, 8);
}
