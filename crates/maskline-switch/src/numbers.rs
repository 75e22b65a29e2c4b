//! Which numbers may be dialled at all.
//!
//! Pure tables and rules. Which sub-account may call which countries, and which numbers
//! are virtual, is the caller's knowledge; the country of a number is in [`crate::country`], and how
//! a trunk writes a number is in [`crate::identity`].

use std::collections::BTreeSet;

use maskline_events::Msisdn;

use crate::country::{country_of, split_calling_code};

/// Why a number is not dialled. Names no number: it may be shown and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// An emergency number, of whichever country and with or without its calling code.
    #[error("emergency numbers are never dialled")]
    Emergency,
    /// Fewer digits than any subscriber's number has there, or a service code.
    #[error("short numbers and service codes are never dialled")]
    Short,
    /// The sub-account may not call this country; `None` for a calling code of no country, which
    /// nobody may call.
    #[error("calls to {} are not allowed for this sub-account", .country.unwrap_or("numbers of no country"))]
    CountryNotAllowed {
        /// ISO 3166-1 alpha-2.
        country: Option<&'static str>,
    },
    /// The destination is itself a virtual number: such a call would go in circles.
    #[error("a virtual number never calls a virtual number")]
    VirtualNumber,
}

/// Whether a call may go out to `destination`: default-deny by country, and never to an emergency
/// number, a short number or a virtual number.
///
/// `allowed_countries` are upper-case ISO 3166-1 alpha-2 codes; `is_virtual` says that the
/// destination is a virtual number of this installation, of any sub-account.
///
/// # Errors
/// The first [`Refused`] that applies, in the order of its variants with [`Refused::VirtualNumber`]
/// before the country: what can never be dialled comes before what this sub-account may not.
pub fn may_dial(
    destination: &Msisdn,
    allowed_countries: &BTreeSet<String>,
    is_virtual: bool,
) -> Result<(), Refused> {
    if let Some(refused) = service_number(destination) {
        return Err(refused);
    }
    if is_virtual {
        return Err(Refused::VirtualNumber);
    }
    match country_of(destination) {
        Some(country) if allowed_countries.contains(country) => Ok(()),
        country => Err(Refused::CountryNotAllowed { country }),
    }
}

/// Whether a number may be made a virtual number: one that is an emergency or short number never.
#[must_use]
pub fn is_assignable(msisdn: &Msisdn) -> bool {
    service_number(msisdn).is_none()
}

/// `Emergency` or `Short`, when the number is one.
///
/// A gateway that strips the calling code, or takes the digits as they are, would dial a short
/// number as if it came from its own country. So the rule that refuses is about length: no
/// subscriber's number is as short as these. The table of emergency numbers only gives the refusal
/// its name; a subscriber's number that begins with one (+65 9991 2345) is no emergency number.
fn service_number(number: &Msisdn) -> Option<Refused> {
    let digits = number.digits();
    let (code, national) = split_calling_code(digits)?;
    if !is_short(code, national) {
        return None;
    }
    // North American exchanges may stop listening after 911.
    let as_heard = match (code, national.get(..3)) {
        (1, Some("911")) => "911",
        _ => national,
    };
    let emergency = is_emergency(digits)
        || is_emergency(as_heard)
        || is_emergency(national.trim_start_matches('0'));
    Some(if emergency {
        Refused::Emergency
    } else {
        Refused::Short
    })
}

fn is_short(code: u16, national: &str) -> bool {
    if national.len() < shortest_subscriber_number(code) {
        return true;
    }
    match code {
        // N11 is a service code and can't be an area code.
        1 => matches!(national.as_bytes(), [b'2'..=b'9', b'1', b'1', ..]),
        // European zones: 116xxx, services of social value, and directory enquiries.
        30..=49 | 350..=389 | 420..=423 => {
            national.len() <= 6 && (national.starts_with("116") || national.starts_with("118"))
        }
        _ => false,
    }
}

/// The fewest digits of a fixed or mobile subscriber's national number under a calling code.
///
/// As libphonenumber has it, but longer for +27, +43, +82 and +352, where it counts some short
/// codes in. Codes that aren't named, assigned or not, have 7.
fn shortest_subscriber_number(code: u16) -> usize {
    match code {
        290 | 683 | 690 => 4,
        43 | 49 | 247 | 352 | 358 | 500 | 676 | 677 | 678 | 682 | 685 | 686 | 688 => 5,
        39 | 40 | 53 | 63 | 95 | 98 | 252 | 298 | 299 | 359 | 376 | 421 | 508 | 597 | 672 | 681
        | 687 | 880 => 6,
        20 | 32 | 36 | 45 | 47 | 51 | 57 | 60 | 64 | 65 | 66 | 82 | 213 | 216 | 222 | 223 | 224
        | 226 | 227 | 228 | 232 | 235 | 236 | 250 | 253 | 257 | 258 | 264 | 266 | 268 | 350
        | 355 | 356 | 357 | 370 | 371 | 373 | 374 | 377 | 378 | 382 | 383 | 385 | 386 | 387
        | 389 | 502 | 503 | 504 | 505 | 506 | 509 | 591 | 593 | 598 | 689 | 850 | 852 | 853
        | 855 | 856 | 886 | 962 | 963 | 964 | 965 | 968 | 970 | 971 | 972 | 973 | 974 | 976
        | 977 | 993 => 8,
        27 | 31 | 33 | 34 | 41 | 44 | 56 | 61 | 81 | 84 | 92 | 93 | 94 | 211 | 212 | 218 | 221
        | 233 | 237 | 240 | 242 | 244 | 245 | 249 | 251 | 255 | 256 | 260 | 261 | 262 | 351
        | 375 | 380 | 420 | 590 | 594 | 596 | 966 | 992 | 994 | 995 | 996 | 998 => 9,
        1 | 7 | 30 | 52 | 54 | 55 | 58 | 90 | 91 | 225 | 229 | 234 => 10,
        _ => 7,
    }
}

/// Whether some country's emergency services answer under these digits. One table for the world:
/// which countries share a number changes, and calling one of them by mistake is as bad anywhere.
fn is_emergency(digits: &str) -> bool {
    match digits {
        // Two digits.
        "01" | "02" | "03" | "13" | "14" | "15" | "16" | "17" | "18" | "19" | "90" | "91"
        | "92" | "93" | "94" => true,
        // Three digits: with 0, with 1, the rest.
        "000" | "001" | "002" | "003" | "011" | "019" | "022" | "033" | "050" | "060" | "065"
        | "066" | "068" | "080" | "085" | "088" => true,
        "100" | "101" | "102" | "103" | "104" | "105" | "106" | "107" | "108" | "110" | "111"
        | "112" | "113" | "114" | "115" | "116" | "117" | "118" | "119" | "120" | "122" | "123"
        | "124" | "125" | "127" | "128" | "129" | "130" | "131" | "132" | "133" | "140" | "144"
        | "150" | "151" | "152" | "153" | "154" | "155" | "156" | "157" | "158" | "159" | "160"
        | "166" | "170" | "171" | "172" | "175" | "177" | "180" | "188" | "190" | "191" | "192"
        | "193" | "194" | "195" | "197" | "198" | "199" => true,
        "211" | "311" | "333" | "355" | "511" | "555" | "666" | "819" | "888" | "901" | "902"
        | "903" | "911" | "912" | "913" | "917" | "919" | "922" | "933" | "939" | "955" | "977"
        | "990" | "991" | "992" | "993" | "994" | "995" | "996" | "997" | "998" | "999" => true,
        // Longer: Pakistan, the Central African Republic, India, Gabon, Oman, Thailand, South
        // Africa and Namibia, Sweden, Eritrea, Micronesia, Niger.
        "1122" | "1220" | "1298" | "2611" | "1300" | "1730" | "1444" | "9999" | "1669"
        | "10111" | "10177" | "90000" | "124422" | "127799" | "201606" | "201917" | "202099"
        | "202914" | "320221" | "723141" => true,
        _ => false,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;
    use rlibphonenumber::{
        PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberType, get_national_significant_number_owned,
    };

    use super::*;

    fn number(text: &str) -> Msisdn {
        Msisdn::parse(text).unwrap()
    }

    /// Every country there is, so that a refusal is never for the country's sake.
    fn everywhere() -> BTreeSet<String> {
        (b'A'..=b'Z')
            .flat_map(|a| (b'A'..=b'Z').map(move |b| format!("{}{}", a as char, b as char)))
            .collect()
    }

    #[test]
    fn an_emergency_number_is_refused_with_and_without_a_calling_code() {
        for text in [
            "+112",
            "+911",
            "+999",
            "+110",
            "+119",
            "+111",
            "+995",
            "+1669",
            "+10111",
            "+65995",
            "+65999",
            "+65112",
            "+650995",
            "+65000",
            "+1911",
            "+1112",
            "+19115550100",
            "+44999",
            "+44112",
            "+49112",
            "+49110",
            "+49911",
            "+3315",
            "+3317",
            "+3318",
            "+33112",
            "+39112",
            "+39118",
            "+61000",
            "+61112",
            "+64111",
            "+66191",
            "+661669",
            "+81110",
            "+81119",
            "+82119",
            "+86110",
            "+86120",
            "+91112",
            "+91100",
            "+2710111",
            "+2710177",
            "+4690000",
            "+23618",
            "+2361220",
            "+24118",
            "+99803",
            "+290999",
            "+43144",
            "+7101",
            "+702",
            "+55190",
            "+9681444",
            "+971999",
        ] {
            let text = number(text);
            let digits = text.as_str();
            assert_eq!(
                may_dial(&text, &everywhere(), false),
                Err(Refused::Emergency),
                "{digits}"
            );
            assert_eq!(
                may_dial(&text, &everywhere(), true),
                Err(Refused::Emergency),
                "{digits}"
            );
            assert!(!is_assignable(&text), "{digits}");
        }
    }

    #[test]
    fn a_short_number_is_refused() {
        for text in [
            "+6577777",
            "+651777",
            "+6571234",
            "+12115550100",
            "+14115550100",
            "+1411",
            "+1212555010",
            "+44118118",
            "+44116123",
            "+448001111",
            "+49116117",
            "+4911833",
            "+391240",
            "+39116000",
            "+431450",
            "+3521313",
            "+35211817",
            "+358116117",
            "+82182",
            "+8216114",
            "+81186",
            "+611234",
            "+999456",
            "+800456",
        ] {
            let text = number(text);
            let digits = text.as_str();
            assert_eq!(
                may_dial(&text, &everywhere(), false),
                Err(Refused::Short),
                "{digits}"
            );
            assert!(!is_assignable(&text), "{digits}");
        }
    }

    #[test]
    fn a_subscriber_number_that_begins_like_an_emergency_number_is_dialled() {
        for text in [
            "+6599912345",
            "+6599512345",
            "+6591123456",
            "+6511912345",
            "+19122345678",
            "+19995550100",
            "+19105550100",
            "+441122345678",
            "+449991234567",
            "+33155667788",
            "+33180112112",
            "+4911033445566",
            "+43112345",
            "+4351717",
            "+4930110",
            "+61112345678",
            "+39011234567",
            "+2908999",
            "+6834002",
            "+67740123",
            "+8613012345678",
            "+3931112345",
        ] {
            let text = number(text);
            let digits = text.as_str();
            assert_eq!(may_dial(&text, &everywhere(), false), Ok(()), "{digits}");
            assert!(is_assignable(&text), "{digits}");
        }
    }

    #[test]
    fn only_allowed_countries_are_dialled_and_numbers_of_no_country_never() {
        let singapore = BTreeSet::from(["SG".to_owned()]);
        let refused = |country| Err(Refused::CountryNotAllowed { country });
        for (text, expected) in [
            ("+6568330330", Ok(())),
            ("+6068330330", refused(Some("MY"))),
            ("+18765550100", refused(Some("JM"))),
            ("+80012345678", refused(None)),
            ("+88213123456", refused(None)),
            ("+9991234567", refused(None)),
        ] {
            assert_eq!(
                may_dial(&number(text), &singapore, false),
                expected,
                "{text}"
            );
        }
        let text = number("+6568330330");
        assert_eq!(
            may_dial(&text, &BTreeSet::new(), false),
            refused(Some("SG"))
        );
        let text = number("+80012345678");
        assert_eq!(may_dial(&text, &everywhere(), false), refused(None));
    }

    #[test]
    fn a_virtual_number_is_refused_whatever_its_country() {
        for allowed in [everywhere(), BTreeSet::new()] {
            assert_eq!(
                may_dial(&number("+6568330330"), &allowed, true),
                Err(Refused::VirtualNumber)
            );
        }
    }

    #[test]
    fn a_refusal_says_what_it_is_without_the_number() {
        let refused = |country| Refused::CountryNotAllowed { country }.to_string();
        assert_eq!(
            refused(Some("MY")),
            "calls to MY are not allowed for this sub-account"
        );
        assert_eq!(
            refused(None),
            "calls to numbers of no country are not allowed for this sub-account"
        );
    }

    #[test]
    fn the_shortest_lengths_agree_with_libphonenumber() {
        let longer_here = [27, 43, 82, 352];
        let mut wrong = Vec::new();
        for code in PHONE_NUMBER_UTIL.get_supported_calling_codes() {
            let regions = PHONE_NUMBER_UTIL
                .get_regions_for_country_calling_code(code)
                .unwrap();
            // The codes of no country have no region with an example.
            if !regions
                .into_iter()
                .any(|region| PHONE_NUMBER_UTIL.get_example_number(region).is_ok())
            {
                continue;
            }
            let ours = shortest_subscriber_number(u16::try_from(code).unwrap());
            let theirs = (2..=12).find(|&length| {
                // Made, not parsed: a parser takes a national prefix away or adds an area code.
                let number = PhoneNumber {
                    country_code: code,
                    national_number: "8".repeat(length).parse().unwrap(),
                    ..PhoneNumber::default()
                };
                [PhoneNumberType::FixedLine, PhoneNumberType::Mobile]
                    .iter()
                    .any(|kind| {
                        matches!(
                            PHONE_NUMBER_UTIL
                                .is_possible_number_for_type_with_reason(&number, *kind),
                            Ok(rlibphonenumber::NumberLengthType::IsPossible)
                        )
                    })
            });
            if longer_here.contains(&code) {
                assert!(theirs.unwrap() < ours, "+{code} needs no exception");
            } else if theirs != Some(ours) {
                wrong.push((code, theirs, ours));
            }
        }
        assert!(wrong.is_empty(), "code, theirs, ours: {wrong:?}");
    }

    #[test]
    fn every_example_number_of_the_world_may_be_dialled() {
        let mut seen = 0;
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            for kind in [PhoneNumberType::FixedLine, PhoneNumberType::Mobile] {
                if let Ok(example) =
                    PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind)
                {
                    let national = get_national_significant_number_owned(&example);
                    let text = number(&format!("+{}{national}", example.country_code));
                    let digits = text.as_str();
                    assert_eq!(may_dial(&text, &everywhere(), false), Ok(()), "{digits}");
                    seen += 1;
                }
            }
        }
        assert!(seen > 450, "only {seen} example numbers");
    }

    proptest! {
        #[test]
        fn no_number_of_five_digits_or_fewer_is_ever_dialled(digits in "[1-9][0-9]{2,4}") {
            prop_assert!(may_dial(&number(&digits), &everywhere(), false).is_err());
        }
    }
}
