//! How the made-up carriers write numbers, what the switch is told of it, and what must come of it.

use maskline_events::{Msisdn, Party};
use maskline_media::Side;
use maskline_phone::Identity;
use maskline_switch::identity::{BareNumbers, CallerId, NumberFormat, UriScheme};
use maskline_switch::{IdentityRules, JournalRecord};

use crate::scenario::CallPlan;
use crate::site;

/// How both carriers of a run write numbers. The phones' numbers and the virtual ones are of
/// Singapore: `+65` and eight digits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Numbering {
    /// `+6591234000`, in `sip:` URIs.
    #[default]
    E164,
    /// `91234000`; callers in `P-Asserted-Identity` as well.
    National,
    /// `006591234000`.
    International,
    /// `tel:91234000;phone-context=+65` from callers, `tel:+6591234000` to callees.
    Tel,
    /// Behind an exchange that puts a 9 in front and wants its account in `From`.
    Exchange,
}

/// What `From` names towards a carrier that wants its account there.
const ACCOUNT: &str = "account-7";

impl Numbering {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::E164,
        Self::National,
        Self::International,
        Self::Tel,
        Self::Exchange,
    ];

    /// What the switch is told of the carriers.
    pub(crate) fn rules(self) -> IdentityRules {
        let singapore = IdentityRules {
            country_code: Some("65".to_owned()),
            bare_numbers: BareNumbers::National,
            ..IdentityRules::default()
        };
        match self {
            Self::E164 => IdentityRules::default(),
            Self::National => IdentityRules {
                number_format: NumberFormat::National,
                caller_id: CallerId::FromAndPai,
                user_phone: true,
                ..singapore
            },
            Self::International => IdentityRules {
                number_format: NumberFormat::International,
                ..IdentityRules::default()
            },
            Self::Tel => IdentityRules {
                uri: UriScheme::Tel,
                caller_id: CallerId::FromAndPai,
                ..singapore
            },
            Self::Exchange => IdentityRules {
                strip: vec!["9".to_owned()],
                number_format: NumberFormat::Plain,
                add_prefix: "9".to_owned(),
                caller_id: CallerId::Pai,
                from_user: Some(ACCOUNT.to_owned()),
                ..singapore
            },
        }
    }

    /// A number as a carrier's phones write it into a SIP URI's user part.
    fn user(self, number: &str) -> String {
        let national = number.trim_start_matches("+65");
        match self {
            Self::E164 => number.to_owned(),
            Self::National => national.to_owned(),
            Self::International => format!("0065{national}"),
            Self::Tel => format!("{national};phone-context=+65"),
            Self::Exchange => format!("9{national}"),
        }
    }

    /// The Request-URI with which a number is dialled.
    pub(crate) fn dialled(self, number: &str) -> String {
        let user = self.user(number);
        match self {
            Self::Tel => format!("tel:{user}"),
            Self::E164 | Self::National | Self::International | Self::Exchange => {
                format!("sip:{user}@{}", site::switch_address())
            }
        }
    }

    /// How a caller's phone names itself.
    pub(crate) fn introduce(self, identity: &mut Identity, withholds: bool) {
        let number = std::mem::take(&mut identity.user);
        identity.user = self.user(&number);
        let asserted = format!("<sip:{}@carrier.example>", identity.user);
        if withholds {
            "anonymous".clone_into(&mut identity.user);
            let privacy = ("Privacy".to_owned(), "id;critical".to_owned());
            identity.extra.push(privacy);
        }
        if withholds || self == Self::National {
            let name = "P-Asserted-Identity".to_owned();
            identity.extra.push((name, asserted));
        }
    }

    /// What a callee's display shows of a virtual number.
    pub(crate) fn shows(self, number: &str) -> String {
        let national = number.trim_start_matches("+65");
        match self {
            Self::E164 | Self::Tel => number.to_owned(),
            Self::National => national.to_owned(),
            Self::International => format!("0065{national}"),
            Self::Exchange => ACCOUNT.to_owned(),
        }
    }
}

/// What a call's events say of its caller is what the caller wants said, and a withheld number is
/// in the snapshot and nowhere else.
pub(crate) fn told_of_caller(
    call: usize,
    plan: &CallPlan,
    source: &Party,
    record: &[u8],
) -> Result<(), String> {
    let number = Msisdn::parse(&site::phone_number(call, Side::Caller)).ok();
    let expected = match number {
        Some(number) if !plan.withholds => Party::Number(number),
        Some(_) | None => Party::Anonymous,
    };
    if *source != expected {
        return Err(format!("the caller is {expected:?} and told as {source:?}"));
    }
    if plan.withholds && contains(record, &site::phone_number(call, Side::Caller)) {
        return Err("an event tells a number that is withheld".to_owned());
    }
    Ok(())
}

/// Whether the number that a caller withholds is kept, and no number shows in a log of it.
pub(crate) fn kept(call: usize, plan: &CallPlan, snapshot: &[u8]) -> Result<(), String> {
    let number = site::phone_number(call, Side::Caller);
    match maskline_switch::snapshot::Snapshot::from_bytes(snapshot) {
        Ok(read) => {
            let shown = format!("{read:?}");
            let numbers = [Side::Caller, Side::Callee].map(|side| site::phone_number(call, side));
            if numbers.iter().any(|it| contains(shown.as_bytes(), it)) {
                return Err(format!("what shows a snapshot shows a number: {shown}"));
            }
            let withheld = read.withheld.as_ref().map(Msisdn::as_str);
            let expected = plan.withholds.then_some(number.as_str());
            if withheld == expected {
                Ok(())
            } else {
                Err("a snapshot does not hold what its caller withholds".to_owned())
            }
        }
        Err(_) => Err("a snapshot does not read".to_owned()),
    }
}

/// The bodies of a commit's events.
pub(crate) fn bodies(record: &JournalRecord) -> Vec<u8> {
    let bodies = record.events.iter().map(|event| event.body.as_bytes());
    bodies.flatten().copied().collect()
}

fn contains(bytes: &[u8], number: &str) -> bool {
    // The national number, so that no way of writing it is missed.
    let national = number.trim_start_matches("+65");
    bytes
        .windows(national.len())
        .any(|window| window == national.as_bytes())
}
