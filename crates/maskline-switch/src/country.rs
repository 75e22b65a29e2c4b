//! Which country a number belongs to: by calling code and area prefix alone.
//!
//! The table is our own reading of the numbering plans (ITU-T E.164, the national plans behind the
//! shared calling codes) and agrees with libphonenumber, which the tests hold against it. Nothing
//! here asks whether a number is valid, complete or in service: that a number exists is not what
//! its country depends on. What may be dialled is decided in [`crate::numbers`].

use maskline_events::Msisdn;

/// The ISO 3166-1 alpha-2 code of the country that `number` belongs to.
///
/// A prefix too short to tell countries of one calling code apart gives the code's main country:
/// US for +1, RU for +7, GB for +44 and so on. Numbers of +1 that belong to no place (toll free
/// 8xx, premium 900, unassigned area codes) are US too, as the plan's administration is there.
/// Kosovo is `XK`, from the user-assigned part of the standard; Ascension and Tristan da Cunha are
/// `SH`, whose code the standard gives them.
///
/// `None` for calling codes of no country (+800, +808, +870, +878, +881, +882, +883, +888, +979)
/// and for codes that are not assigned.
#[must_use]
pub fn country_of(number: &Msisdn) -> Option<&'static str> {
    let (code, national) = split_calling_code(number.digits())?;
    Some(match code {
        1 => north_america(national),
        7 => one_of(national, &[("KZ", &["6", "7"])], "RU"),
        39 => one_of(national, &[("VA", &["06698"])], "IT"),
        44 => one_of(national, BRITISH_ISLES, "GB"),
        47 => one_of(national, &[("SJ", &["79"])], "NO"),
        61 => one_of(national, AUSTRALIA, "AU"),
        212 => one_of(national, &[("EH", &["5288", "5289"])], "MA"),
        262 => one_of(
            national,
            &[(
                "YT",
                &["2689", "269", "639", "7093", "9398", "9478", "9769"],
            )],
            "RE",
        ),
        358 => one_of(national, &[("AX", &["18"])], "FI"),
        590 => one_of(national, GUADELOUPE, "GP"),
        599 => one_of(national, &[("BQ", &["3", "4", "7"])], "CW"),
        other => return whole_code(other),
    })
}

/// Splits `digits` (E.164 without `+`) into the calling code and what follows it.
///
/// The length of a calling code follows from its first two digits, assigned or not (E.164 §6.2.1).
/// `None` when there are fewer digits than that.
pub(crate) fn split_calling_code(digits: &str) -> Option<(u16, &str)> {
    let mut leading = digits.bytes();
    let length = match (leading.next()?, leading.next()) {
        (b'1' | b'7', _) => 1,
        (b'2', Some(b'0' | b'7'))
        | (b'3', Some(b'0'..=b'4' | b'6' | b'9'))
        | (b'4', Some(b'0' | b'1' | b'3'..=b'9'))
        | (b'5', Some(b'1'..=b'8'))
        | (b'6', Some(b'0'..=b'6'))
        | (b'8', Some(b'1' | b'2' | b'4' | b'6'))
        | (b'9', Some(b'0'..=b'5' | b'8')) => 2,
        _ => 3,
    };
    let (code, national) = digits.split_at_checked(length)?;
    Some((code.parse().ok()?, national))
}

/// Countries within a calling code and the prefixes of the national number that are theirs. No
/// prefix of one country begins a prefix of another.
type Split = &'static [(&'static str, &'static [&'static str])];

fn one_of(national: &str, split: Split, main: &'static str) -> &'static str {
    split
        .iter()
        .find(|(_, prefixes)| prefixes.iter().any(|prefix| national.starts_with(prefix)))
        .map_or(main, |(country, _)| country)
}

/// +44: area codes of the Crown dependencies and the mobile ranges of their operators.
const BRITISH_ISLES: Split = &[
    ("GG", &["1481", "7781", "7839", "79111", "79117"]),
    ("IM", &["1624", "74576", "7524", "7624", "7924"]),
    (
        "JE",
        &[
            "1534", "7509", "77003", "77007", "77008", "7797", "7829", "7937",
        ],
    ),
];

/// +61: the exchanges that only the Cocos (Keeling) Islands or only Christmas Island have. Their
/// mobile numbers can't be told from those of the mainland.
const AUSTRALIA: Split = &[
    (
        "CC",
        &[
            "851002", "851031", "851060", "851089", "851118", "851176", "851223", "89162", "891703",
        ],
    ),
    (
        "CX",
        &[
            "851001", "851030", "851059", "851088", "851117", "851146", "851175", "851222",
            "851235", "89164", "891958",
        ],
    ),
];

/// +590: exchanges of Saint-Barthélemy and Saint-Martin. Where an exchange serves both, or one of
/// them and Guadeloupe, the first of GP, BL, MF has it. Mobile numbers can't be told apart.
const GUADELOUPE: Split = &[
    ("BL", &["59027", "59029", "59051", "59052", "59087"]),
    (
        "MF",
        &[
            "59000", "59007", "59009", "59013", "59030", "59043", "59050", "59056", "59058",
            "59077", "59079",
        ],
    ),
];

/// +1: the North American Numbering Plan by area code.
fn north_america(national: &str) -> &'static str {
    let area: Option<u16> = national.get(..3).and_then(|area| area.parse().ok());
    match area.unwrap_or_default() {
        // Geographic codes, then 600 and the 6yy of Canada's own services.
        204 | 226 | 236 | 249 | 250 | 257 | 263 | 273 | 289 | 306 | 343 | 354 | 365 | 367 | 368
        | 382 | 403 | 416 | 418 | 428 | 431 | 437 | 438 | 450 | 468 | 474 | 506 | 514 | 519
        | 548 | 579 | 581 | 584 | 587 | 604 | 613 | 639 | 647 | 672 | 683 | 705 | 709 | 742
        | 753 | 778 | 780 | 782 | 807 | 819 | 825 | 867 | 873 | 879 | 902 | 905 | 942 | 600
        | 622 | 633 | 644 | 655 | 677 | 688 => "CA",
        242 => "BS",
        246 => "BB",
        264 => "AI",
        268 => "AG",
        284 => "VG",
        340 => "VI",
        345 => "KY",
        441 => "BM",
        473 => "GD",
        649 => "TC",
        658 | 876 => "JM",
        664 => "MS",
        670 => "MP",
        671 => "GU",
        684 => "AS",
        721 => "SX",
        758 => "LC",
        767 => "DM",
        784 => "VC",
        787 | 939 => "PR",
        809 | 829 | 849 => "DO",
        868 => "TT",
        869 => "KN",
        _ => "US",
    }
}

/// The calling codes that one country has to itself.
fn whole_code(code: u16) -> Option<&'static str> {
    Some(match code {
        20 => "EG",
        27 => "ZA",
        30 => "GR",
        31 => "NL",
        32 => "BE",
        33 => "FR",
        34 => "ES",
        36 => "HU",
        40 => "RO",
        41 => "CH",
        43 => "AT",
        45 => "DK",
        46 => "SE",
        48 => "PL",
        49 => "DE",
        51 => "PE",
        52 => "MX",
        53 => "CU",
        54 => "AR",
        55 => "BR",
        56 => "CL",
        57 => "CO",
        58 => "VE",
        60 => "MY",
        62 => "ID",
        63 => "PH",
        64 => "NZ",
        65 => "SG",
        66 => "TH",
        81 => "JP",
        82 => "KR",
        84 => "VN",
        86 => "CN",
        90 => "TR",
        91 => "IN",
        92 => "PK",
        93 => "AF",
        94 => "LK",
        95 => "MM",
        98 => "IR",
        211 => "SS",
        213 => "DZ",
        216 => "TN",
        218 => "LY",
        220 => "GM",
        221 => "SN",
        222 => "MR",
        223 => "ML",
        224 => "GN",
        225 => "CI",
        226 => "BF",
        227 => "NE",
        228 => "TG",
        229 => "BJ",
        230 => "MU",
        231 => "LR",
        232 => "SL",
        233 => "GH",
        234 => "NG",
        235 => "TD",
        236 => "CF",
        237 => "CM",
        238 => "CV",
        239 => "ST",
        240 => "GQ",
        241 => "GA",
        242 => "CG",
        243 => "CD",
        244 => "AO",
        245 => "GW",
        246 => "IO",
        247 | 290 => "SH",
        248 => "SC",
        249 => "SD",
        250 => "RW",
        251 => "ET",
        252 => "SO",
        253 => "DJ",
        254 => "KE",
        255 => "TZ",
        256 => "UG",
        257 => "BI",
        258 => "MZ",
        260 => "ZM",
        261 => "MG",
        263 => "ZW",
        264 => "NA",
        265 => "MW",
        266 => "LS",
        267 => "BW",
        268 => "SZ",
        269 => "KM",
        291 => "ER",
        297 => "AW",
        298 => "FO",
        299 => "GL",
        350 => "GI",
        351 => "PT",
        352 => "LU",
        353 => "IE",
        354 => "IS",
        355 => "AL",
        356 => "MT",
        357 => "CY",
        359 => "BG",
        370 => "LT",
        371 => "LV",
        372 => "EE",
        373 => "MD",
        374 => "AM",
        375 => "BY",
        376 => "AD",
        377 => "MC",
        378 => "SM",
        379 => "VA",
        380 => "UA",
        381 => "RS",
        382 => "ME",
        383 => "XK",
        385 => "HR",
        386 => "SI",
        387 => "BA",
        389 => "MK",
        420 => "CZ",
        421 => "SK",
        423 => "LI",
        500 => "FK",
        501 => "BZ",
        502 => "GT",
        503 => "SV",
        504 => "HN",
        505 => "NI",
        506 => "CR",
        507 => "PA",
        508 => "PM",
        509 => "HT",
        591 => "BO",
        592 => "GY",
        593 => "EC",
        594 => "GF",
        595 => "PY",
        596 => "MQ",
        597 => "SR",
        598 => "UY",
        670 => "TL",
        672 => "NF",
        673 => "BN",
        674 => "NR",
        675 => "PG",
        676 => "TO",
        677 => "SB",
        678 => "VU",
        679 => "FJ",
        680 => "PW",
        681 => "WF",
        682 => "CK",
        683 => "NU",
        685 => "WS",
        686 => "KI",
        687 => "NC",
        688 => "TV",
        689 => "PF",
        690 => "TK",
        691 => "FM",
        692 => "MH",
        850 => "KP",
        852 => "HK",
        853 => "MO",
        855 => "KH",
        856 => "LA",
        880 => "BD",
        886 => "TW",
        960 => "MV",
        961 => "LB",
        962 => "JO",
        963 => "SY",
        964 => "IQ",
        965 => "KW",
        966 => "SA",
        967 => "YE",
        968 => "OM",
        970 => "PS",
        971 => "AE",
        972 => "IL",
        973 => "BH",
        974 => "QA",
        975 => "BT",
        976 => "MN",
        977 => "NP",
        992 => "TJ",
        993 => "TM",
        994 => "AZ",
        995 => "GE",
        996 => "KG",
        998 => "UZ",
        _ => return None,
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use rlibphonenumber::{
        PHONE_NUMBER_UTIL, PhoneNumber, PhoneNumberType, get_national_significant_number_owned,
    };

    use super::*;

    fn country(text: &str) -> Option<&'static str> {
        country_of(&Msisdn::parse(text).unwrap())
    }

    /// Where libphonenumber's answer is not ours, and why.
    const DEPARTURES: [(&str, &str); 6] = [
        // The codes 5288 and 5289 are in its pattern for EH, but its MA takes all of +212.
        ("+2125288", "EH"),
        ("+2125289", "EH"),
        // In its pattern for IM, but its GB takes it first.
        ("+447924", "IM"),
        // Toll-free and special services: its metadata happens to name them in one country's only.
        ("+18001", "US"),
        ("+44980", "GB"),
        ("+44981", "GB"),
    ];

    /// What libphonenumber says, but for the departures and for the two regions that ISO 3166-1
    /// has under Saint Helena.
    fn reference(number: &PhoneNumber) -> Option<String> {
        let region = PHONE_NUMBER_UTIL.get_region_for_number(number)?.to_string();
        let text = e164(number);
        let departure = DEPARTURES
            .iter()
            .find(|(prefix, _)| text.starts_with(prefix));
        Some(match (departure, region.as_str()) {
            (Some((_, country)), _) => (*country).to_owned(),
            (None, "AC" | "TA") => "SH".to_owned(),
            (None, _) => region,
        })
    }

    fn e164(number: &PhoneNumber) -> String {
        let national = get_national_significant_number_owned(number);
        format!("+{}{national}", number.country_code)
    }

    #[test]
    fn every_calling_code_and_every_split_gives_its_country() {
        for (number, expected) in [
            ("+6568330330", Some("SG")),
            ("+12125550100", Some("US")),
            ("+18005550100", Some("US")),
            ("+19995550100", Some("US")),
            ("+14165550100", Some("CA")),
            ("+18765550100", Some("JM")),
            ("+16585550100", Some("JM")),
            ("+17875550100", Some("PR")),
            ("+16715550100", Some("GU")),
            ("+13405550100", Some("VI")),
            ("+18295550100", Some("DO")),
            ("+78005553535", Some("RU")),
            ("+74951234567", Some("RU")),
            ("+77172123456", Some("KZ")),
            ("+390669812345", Some("VA")),
            ("+37912345", Some("VA")),
            ("+390612345678", Some("IT")),
            ("+442079460000", Some("GB")),
            ("+441481960194", Some("GG")),
            ("+441534960194", Some("JE")),
            ("+441624960194", Some("IM")),
            ("+447624123456", Some("IM")),
            ("+4779123456", Some("SJ")),
            ("+4722123456", Some("NO")),
            ("+61891641234", Some("CX")),
            ("+61891621234", Some("CC")),
            ("+61291641234", Some("AU")),
            ("+212528912345", Some("EH")),
            ("+212522123456", Some("MA")),
            ("+262269601234", Some("YT")),
            ("+262262161234", Some("RE")),
            ("+358181234567", Some("AX")),
            ("+358912345678", Some("FI")),
            ("+590590271234", Some("BL")),
            ("+590590501234", Some("MF")),
            ("+590590201234", Some("GP")),
            ("+5997151234", Some("BQ")),
            ("+59994151234", Some("CW")),
            ("+672312345", Some("NF")),
            ("+681401234", Some("WF")),
            ("+2908999", Some("SH")),
            ("+24762889", Some("SH")),
            ("+38328012345", Some("XK")),
            ("+80012345678", None),
            ("+80812345678", None),
            ("+870773111632", None),
            ("+87810123456", None),
            ("+881612345678", None),
            ("+8823421234", None),
            ("+883510012345", None),
            ("+888123456789", None),
            ("+979123456789", None),
            ("+999", None),
            ("+2101234567", None),
            ("+2812345678", None),
        ] {
            assert_eq!(country(number), expected, "{number}");
        }
    }

    #[test]
    fn a_number_that_is_cut_off_or_too_long_keeps_its_country() {
        for (number, expected) in [
            ("+65999", "SG"),
            ("+1911", "US"),
            ("+112", "US"),
            ("+1876", "JM"),
            ("+7717", "KZ"),
            ("+44148", "GB"),
            ("+441481", "GG"),
            ("+441481960194960", "GG"),
            ("+770", "KZ"),
            ("+681", "WF"),
        ] {
            assert_eq!(country(number), Some(expected), "{number}");
        }
    }

    #[test]
    fn the_example_numbers_of_every_region_agree_with_libphonenumber_whole_and_cut_off() {
        let mut seen = 0;
        for region in PHONE_NUMBER_UTIL.get_supported_regions() {
            for kind in [PhoneNumberType::FixedLine, PhoneNumberType::Mobile] {
                let Ok(example) =
                    PHONE_NUMBER_UTIL.get_example_number_for_type_and_region(region, kind)
                else {
                    continue;
                };
                let number = e164(&example);
                let expected = reference(&example);
                assert!(expected.is_some(), "{region}");
                assert_eq!(country(&number).map(str::to_owned), expected, "{number}");
                let cut = number.split_at(number.len() - 2).0;
                assert_eq!(country(cut).map(str::to_owned), expected, "{cut}");
                seen += 1;
            }
        }
        assert!(seen > 450, "only {seen} example numbers");
        for code in PHONE_NUMBER_UTIL.get_supported_global_network_calling_codes() {
            assert_eq!(country(&format!("+{code}12345678")), None, "+{code}");
        }
    }

    #[test]
    fn shared_calling_codes_agree_with_libphonenumber_prefix_by_prefix() {
        // Calling code, where the prefixes start, how many digits of them vary, length.
        let plans: &[(i32, &str, usize, usize)] = &[
            (1, "", 4, 10),
            (7, "", 4, 10),
            (39, "", 4, 10),
            (39, "066", 2, 10),
            (44, "", 4, 10),
            (44, "7", 4, 10),
            (47, "", 3, 8),
            (61, "", 3, 9),
            (61, "85", 4, 9),
            (61, "89", 4, 9),
            (212, "", 4, 9),
            (262, "", 4, 9),
            (290, "", 2, 4),
            (290, "", 2, 5),
            (358, "", 3, 9),
            (590, "", 3, 9),
            (590, "590", 2, 9),
            (599, "", 4, 7),
            (599, "", 4, 8),
        ];
        let (mut checked, mut wrong) = (0, Vec::new());
        for &(code, start, width, length) in plans {
            for varying in 0..10_usize.pow(u32::try_from(width).unwrap()) {
                let prefix = format!("{start}{varying:0width$}");
                for filler in ["2345678", "0000000", "5670123"] {
                    let national: String =
                        prefix.chars().chain(filler.chars()).take(length).collect();
                    let number = format!("+{code}{national}");
                    let Ok(parsed) = PHONE_NUMBER_UTIL.parse(&number, None) else {
                        continue;
                    };
                    // A parser may take digits away ("national prefix"); that is another number.
                    if e164(&parsed) != number {
                        continue;
                    }
                    if let Some(expected) = reference(&parsed) {
                        checked += 1;
                        if country(&number) != Some(expected.as_str()) {
                            wrong.push(format!("{number} {expected}"));
                        }
                    }
                }
            }
        }
        assert!(checked > 10_000, "only {checked} numbers");
        assert!(wrong.is_empty(), "{} of {checked}: {wrong:?}", wrong.len());
    }

    #[test]
    fn no_prefix_of_one_country_begins_a_prefix_of_another() {
        for split in [BRITISH_ISLES, AUSTRALIA, GUADELOUPE] {
            let all: Vec<(&str, &str)> = split
                .iter()
                .flat_map(|(country, prefixes)| prefixes.iter().map(move |p| (*country, *p)))
                .collect();
            for (a, one) in &all {
                for (b, other) in &all {
                    assert!(
                        a == b || !one.starts_with(other),
                        "{a} {one} and {b} {other}"
                    );
                }
            }
        }
    }
}
