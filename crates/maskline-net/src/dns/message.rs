//! DNS messages (RFC 1035 §4) as far as finding a SIP server needs them: one question, and answers
//! of five types. Pure; what arrives is a stranger's bytes.

use std::net::{Ipv4Addr, Ipv6Addr};

/// Longest name in its written form.
const MAX_NAME_BYTES: usize = 255;
/// Records of one reply that are looked at.
const MAX_RECORDS: usize = 64;
/// Longest chain of aliases that is followed.
const MAX_ALIASES: usize = 8;
/// Most jumps within one compressed name.
const MAX_JUMPS: usize = 16;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    A,
    Aaaa,
    Srv,
    Naptr,
}

impl Kind {
    const fn code(self) -> u16 {
        match self {
            Self::A => 1,
            Self::Aaaa => 28,
            Self::Srv => 33,
            Self::Naptr => 35,
        }
    }
}

/// One record's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    A(Ipv4Addr),
    Aaaa(Ipv6Addr),
    /// RFC 2782; a target of `""` says that there is no such service.
    Srv {
        priority: u16,
        weight: u16,
        port: u16,
        target: String,
    },
    /// RFC 3403, without its regular expression.
    Naptr {
        order: u16,
        preference: u16,
        flags: String,
        service: String,
        replacement: String,
    },
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// These records, none if the name has none or does not exist, and for how many seconds that
    /// holds.
    Found { records: Vec<Record>, ttl: u32 },
    /// The reply did not fit into a datagram.
    Truncated,
    /// The server can't tell: its response code.
    Failed(u8),
}

/// Why bytes are no reply to our question.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unusable {
    #[error("it is cut short or malformed")]
    Malformed,
    #[error("it answers another question")]
    Unasked,
}

/// A question, ready to be sent; `None` when the name is none.
pub(crate) fn question(id: u16, name: &str, kind: Kind) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(64);
    bytes.extend(id.to_be_bytes());
    // Recursion desired; one question.
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    let mut length = 1;
    for label in name.split('.') {
        let size = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n))?;
        length += label.len() + 1;
        bytes.push(size);
        bytes.extend(label.as_bytes());
    }
    if length > MAX_NAME_BYTES {
        return None;
    }
    bytes.push(0);
    bytes.extend(kind.code().to_be_bytes());
    bytes.extend(1_u16.to_be_bytes());
    Some(bytes)
}

/// Reads the reply to [`question`].
///
/// # Errors
/// [`Unusable`]: wait for another.
pub(crate) fn reply(bytes: &[u8], id: u16, name: &str, kind: Kind) -> Result<Reply, Unusable> {
    let mut cursor = Cursor { bytes, at: 0 };
    let its_id = cursor.u16()?;
    let flags = cursor.u16()?;
    let [questions, answers, authorities, _] =
        [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?];
    let is_response = flags & 0x8000 != 0;
    if its_id != id || !is_response || questions != 1 {
        return Err(Unusable::Unasked);
    }
    let asked = (cursor.name()?, cursor.u16()?, cursor.u16()?);
    if asked != (name.to_ascii_lowercase(), kind.code(), 1) {
        return Err(Unusable::Unasked);
    }
    if flags & 0x0200 != 0 {
        return Ok(Reply::Truncated);
    }
    match u8::try_from(flags & 0xf).unwrap_or(0) {
        // No error, or no such name.
        0 | 3 => {}
        code => return Ok(Reply::Failed(code)),
    }
    let answers = cursor.rows(answers)?;
    // How long "there is none" holds (RFC 2308 §5).
    let denied = cursor
        .rows(authorities)
        .unwrap_or_default()
        .into_iter()
        .find_map(|row| match row.data {
            Data::Denial(seconds) => Some(row.ttl.min(seconds)),
            Data::Record(_) | Data::Alias(_) | Data::Other => None,
        });
    let mut owner = asked.0;
    let mut ttl = None::<u32>;
    for _ in 0..MAX_ALIASES {
        let alias = answers.iter().find_map(|row| match &row.data {
            Data::Alias(target) if row.owner == owner => Some((target.clone(), row.ttl)),
            Data::Record(_) | Data::Alias(_) | Data::Denial(_) | Data::Other => None,
        });
        let Some((target, seconds)) = alias else {
            break;
        };
        ttl = Some(ttl.map_or(seconds, |ttl| ttl.min(seconds)));
        owner = target;
    }
    let mut records = Vec::new();
    for row in answers {
        if let Data::Record(record) = row.data
            && row.owner == owner
            && record.kind() == kind
        {
            ttl = Some(ttl.map_or(row.ttl, |ttl| ttl.min(row.ttl)));
            records.push(record);
        }
    }
    let ttl = if records.is_empty() { denied } else { ttl };
    Ok(Reply::Found {
        records,
        ttl: ttl.unwrap_or(0),
    })
}

impl Record {
    const fn kind(&self) -> Kind {
        match self {
            Self::A(_) => Kind::A,
            Self::Aaaa(_) => Kind::Aaaa,
            Self::Srv { .. } => Kind::Srv,
            Self::Naptr { .. } => Kind::Naptr,
        }
    }
}

struct Row {
    owner: String,
    ttl: u32,
    data: Data,
}

enum Data {
    Record(Record),
    /// CNAME.
    Alias(String),
    /// SOA: its minimum.
    Denial(u32),
    Other,
}

#[derive(Clone, Copy)]
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], Unusable> {
        let end = self.at.checked_add(count).ok_or(Unusable::Malformed)?;
        let taken = self.bytes.get(self.at..end).ok_or(Unusable::Malformed)?;
        self.at = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Unusable> {
        self.take(N)?.try_into().map_err(|_| Unusable::Malformed)
    }

    fn u8(&mut self) -> Result<u8, Unusable> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u16(&mut self) -> Result<u16, Unusable> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Unusable> {
        self.array().map(u32::from_be_bytes)
    }

    /// A character-string (RFC 1035 §3.3).
    fn text(&mut self) -> Result<String, Unusable> {
        let length = usize::from(self.u8()?);
        let bytes = self.take(length)?;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    }

    /// A name in lower case without its last dot. Compression may only point back, a bounded number
    /// of times (RFC 1035 §4.1.4).
    fn name(&mut self) -> Result<String, Unusable> {
        let mut name = String::new();
        let mut reader = *self;
        let mut resume = None;
        let mut jumps = 0;
        loop {
            let start = reader.at;
            let length = reader.u8()?;
            match length {
                0 => break,
                1..=63 => {
                    let label = reader.take(usize::from(length))?;
                    let plain = label.iter().all(|b| b.is_ascii_graphic() && *b != b'.');
                    if !plain || name.len() + label.len() > MAX_NAME_BYTES {
                        return Err(Unusable::Malformed);
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.extend(label.iter().map(|b| char::from(b.to_ascii_lowercase())));
                }
                192..=255 => {
                    let low = reader.u8()?;
                    resume.get_or_insert(reader.at);
                    let to = usize::from(u16::from_be_bytes([length & 0x3f, low]));
                    jumps += 1;
                    if to >= start || jumps > MAX_JUMPS {
                        return Err(Unusable::Malformed);
                    }
                    reader.at = to;
                }
                64..=191 => return Err(Unusable::Malformed),
            }
        }
        self.at = resume.unwrap_or(reader.at);
        Ok(name)
    }

    fn rows(&mut self, count: u16) -> Result<Vec<Row>, Unusable> {
        let count = usize::from(count).min(MAX_RECORDS);
        (0..count).map(|_| self.row()).collect()
    }

    fn row(&mut self) -> Result<Row, Unusable> {
        let owner = self.name()?;
        let kind = self.u16()?;
        let class = self.u16()?;
        let ttl = self.u32()?;
        let length = usize::from(self.u16()?);
        let end = self.at + length;
        let mut data = *self;
        self.take(length)?;
        // Names in the data may point back into the message, so it is read in place.
        data.bytes = data.bytes.get(..end).ok_or(Unusable::Malformed)?;
        let data = match (class, kind) {
            (1, 1) => Data::Record(Record::A(data.array::<4>()?.into())),
            (1, 28) => Data::Record(Record::Aaaa(data.array::<16>()?.into())),
            (1, 5) => Data::Alias(data.name()?),
            (1, 33) => Data::Record(Record::Srv {
                priority: data.u16()?,
                weight: data.u16()?,
                port: data.u16()?,
                target: data.name()?,
            }),
            (1, 35) => {
                let (order, preference) = (data.u16()?, data.u16()?);
                let (flags, service) = (data.text()?, data.text()?);
                data.text()?;
                Data::Record(Record::Naptr {
                    order,
                    preference,
                    flags,
                    service,
                    replacement: data.name()?,
                })
            }
            (1, 6) => {
                data.name()?;
                data.name()?;
                data.take(16)?;
                Data::Denial(data.u32()?)
            }
            _ => Data::Other,
        };
        // RFC 2181 §8: a TTL with its top bit set counts as 0.
        let ttl = if ttl > i32::MAX as u32 { 0 } else { ttl };
        Ok(Row { owner, ttl, data })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NAME: &str = "_sip._udp.carrier.example";

    /// A reply to a question with these rows as its answers; a row's owner is a pointer to the
    /// question's name.
    fn with_answers(kind: Kind, rows: &[(u16, u32, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = question(7, NAME, kind).unwrap();
        bytes[2] = 0x81;
        bytes[3] = 0x80;
        bytes[7] = u8::try_from(rows.len()).unwrap();
        for (kind, ttl, data) in rows {
            bytes.extend([0xc0, 12]);
            bytes.extend(kind.to_be_bytes());
            bytes.extend([0, 1]);
            bytes.extend(ttl.to_be_bytes());
            bytes.extend(u16::try_from(data.len()).unwrap().to_be_bytes());
            bytes.extend(data);
        }
        bytes
    }

    #[test]
    fn srv_records_read_with_compressed_targets() {
        // "carrier.example" begins behind "_sip" and "_udp".
        let srv = vec![0, 10, 0, 60, 0x13, 0xc4, 1, b'a', 0xc0, 12 + 10];
        let bytes = with_answers(Kind::Srv, &[(33, 300, srv.clone()), (33, 60, srv)]);
        let Ok(Reply::Found { records, ttl }) = reply(&bytes, 7, NAME, Kind::Srv) else {
            panic!("no answer");
        };
        assert_eq!((records.len(), ttl), (2, 60));
        let expected = Record::Srv {
            priority: 10,
            weight: 60,
            port: 5060,
            target: "a.carrier.example".to_owned(),
        };
        assert_eq!(records[0], expected);
    }

    #[test]
    fn naptr_records_read() {
        let mut naptr = vec![0, 1, 0, 2, 1, b's', 7];
        naptr.extend(b"SIP+D2T");
        naptr.extend([0, 4, b'_', b's', b'i', b'p', 0xc0, 12 + 5]);
        let bytes = with_answers(Kind::Naptr, &[(35, 300, naptr)]);
        let Ok(Reply::Found { records, .. }) = reply(&bytes, 7, NAME, Kind::Naptr) else {
            panic!("no answer");
        };
        let Record::Naptr {
            service,
            replacement,
            ..
        } = &records[0]
        else {
            panic!("{records:?}");
        };
        assert_eq!((service.as_str(), replacement.as_str()), ("SIP+D2T", NAME));
    }

    #[test]
    fn an_alias_is_followed_and_what_belongs_to_another_name_is_not_taken() {
        let mut bytes = with_answers(Kind::A, &[(5, 20, vec![1, b'b', 0])]);
        bytes[7] = 3;
        for (owner, last) in [(b'b', 1), (b'x', 2)] {
            bytes.extend([1, owner, 0, 0, 1, 0, 1, 0, 0, 0, 99, 0, 4, 192, 0, 2, last]);
        }
        let expected = Reply::Found {
            records: vec![Record::A(Ipv4Addr::new(192, 0, 2, 1))],
            ttl: 20,
        };
        assert_eq!(reply(&bytes, 7, NAME, Kind::A), Ok(expected));
    }

    #[test]
    fn what_was_not_asked_is_not_taken() {
        let bytes = with_answers(Kind::A, &[(1, 9, vec![192, 0, 2, 1])]);
        assert!(reply(&bytes, 7, NAME, Kind::A).is_ok());
        for (id, name, kind) in [
            (8, NAME, Kind::A),
            (7, "other.example", Kind::A),
            (7, NAME, Kind::Srv),
        ] {
            assert_eq!(reply(&bytes, id, name, kind), Err(Unusable::Unasked));
        }
        let mut query = bytes.clone();
        query[2] = 1;
        assert_eq!(reply(&query, 7, NAME, Kind::A), Err(Unusable::Unasked));
    }

    #[test]
    fn a_cut_reply_a_failure_and_no_such_name_are_told_apart() {
        let mut bytes = with_answers(Kind::A, &[]);
        bytes[2] |= 2;
        assert_eq!(reply(&bytes, 7, NAME, Kind::A), Ok(Reply::Truncated));
        let mut bytes = with_answers(Kind::A, &[]);
        bytes[3] = 0x82;
        assert_eq!(reply(&bytes, 7, NAME, Kind::A), Ok(Reply::Failed(2)));
        bytes[3] = 0x83;
        let none = Reply::Found {
            records: Vec::new(),
            ttl: 0,
        };
        assert_eq!(reply(&bytes, 7, NAME, Kind::A), Ok(none));
    }

    #[test]
    fn a_name_that_points_forward_or_in_circles_ends_nothing_but_itself() {
        for data in [vec![0xc0, 0xff], vec![0xc0, 55], vec![63, 1]] {
            let bytes = with_answers(Kind::A, &[(5, 9, data)]);
            assert_eq!(reply(&bytes, 7, NAME, Kind::A), Err(Unusable::Malformed));
        }
        assert_eq!(question(1, "a..b", Kind::A), None);
        assert_eq!(question(1, &"a.".repeat(200), Kind::A), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let _ = reply(&bytes, 7, NAME, Kind::Srv);
        }

        #[test]
        fn any_change_of_a_good_reply_is_read_or_refused(
            at in 12..90_usize,
            to in any::<u8>(),
            cut in 0..100_usize,
        ) {
            let srv = vec![0, 10, 0, 60, 0x13, 0xc4, 1, b'a', 0xc0, 12 + 10];
            let mut bytes = with_answers(Kind::Srv, &[(33, 300, srv.clone()), (33, 60, srv)]);
            if let Some(byte) = bytes.get_mut(at) {
                *byte = to;
            }
            bytes.truncate(bytes.len().saturating_sub(cut));
            let _ = reply(&bytes, 7, NAME, Kind::Srv);
        }
    }
}
