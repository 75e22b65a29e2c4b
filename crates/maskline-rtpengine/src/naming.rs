//! What a call is called at a daemon, which other installations and other programs may use too.

/// Before the names of all calls of this program.
const PREFIX: &str = "maskline-";

/// The names that one installation gives: any run of it knows a call by the session alone, and none of another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Naming {
    /// The same over restarts, and of no other installation.
    pub(crate) installation: u64,
}

impl Naming {
    pub(crate) fn call_id(self, key: u64) -> String {
        format!("{PREFIX}{:016x}-{key:016x}", self.installation)
    }

    /// The name of earlier versions, which says nothing of the installation.
    pub(crate) fn earlier_call_id(key: u64) -> String {
        format!("{PREFIX}{key:016x}")
    }

    /// The session of a call of this installation.
    pub(crate) fn own_key_in(self, call_id: &str) -> Option<u64> {
        let (installation, key) = call_id.strip_prefix(PREFIX)?.split_once('-')?;
        (number(installation)? == self.installation).then(|| number(key))?
    }

    /// As [`Self::own_key_in`], also of a call that an earlier version named.
    pub(crate) fn key_in(self, call_id: &str) -> Option<u64> {
        let earlier = || number(call_id.strip_prefix(PREFIX)?);
        self.own_key_in(call_id).or_else(earlier)
    }
}

/// Sixteen digits.
fn number(digits: &str) -> Option<u64> {
    (digits.len() == 16 && !digits.starts_with('+'))
        .then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_call_is_known_by_its_session_and_by_nobody_else_s_installation() {
        let (ours, theirs) = (Naming { installation: 7 }, Naming { installation: 8 });
        let named = ours.call_id(0xfeed);
        assert_eq!(named, "maskline-0000000000000007-000000000000feed");
        assert_eq!(ours.own_key_in(&named), Some(0xfeed));
        assert_eq!(ours.key_in(&named), Some(0xfeed));
        assert_eq!(theirs.key_in(&named), None);
        let earlier = Naming::earlier_call_id(0xfeed);
        assert_eq!(ours.key_in(&earlier), Some(0xfeed));
        assert_eq!(ours.own_key_in(&earlier), None);
        for other in [
            "",
            "maskline-",
            "maskline-7",
            "maskline-7-feed",
            "other-000000000000feed",
            "maskline-00000000000000zz",
            "maskline-+00000000000feed",
            "maskline-0000000000000007-+00000000000feed",
        ] {
            assert_eq!(ours.key_in(other), None, "{other}");
        }
    }
}
