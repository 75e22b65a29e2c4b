//! Whether two URLs name the same receiver: scheme, host and port (RFC 6454 §4).
//!
//! Compares texts and reads as little as it can: two that it takes for the same are the same to
//! every reader of URLs. Some that are the same it takes for different ones (`[::1]` and `[0:0::1]`).

/// Whether both have the same scheme, host and port, whatever their case, and whether a default port is
/// written or not.
pub(crate) fn is_same(one: &str, other: &str) -> bool {
    origin(one).is_some_and(|origin_of_one| Some(origin_of_one) == origin(other))
}

/// Whether what is sent to this URL goes over TLS.
#[must_use]
pub fn is_https(url: &str) -> bool {
    origin(url).is_some_and(|(scheme, _)| scheme == "https")
}

/// `None`: not to be read, and the same as nothing.
fn origin(url: &str) -> Option<(String, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let scheme = scheme.to_ascii_lowercase();
    let default_port = match scheme.as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => return None,
    };
    // With what is before an @: who leaves that out has to know where a host begins.
    let authority = rest.split(['/', '?', '#']).next()?.to_ascii_lowercase();
    let without_port = [default_port, ":"]
        .iter()
        .find_map(|port| authority.strip_suffix(port));
    Some((scheme, without_port.unwrap_or(&authority).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn path_query_case_and_a_written_default_port_make_no_other_receiver() {
        for (one, other) in [
            ("https://a.example/x", "https://a.example"),
            ("https://a.example/x?y=1", "https://a.example?z#f"),
            ("https://a.example/", "HTTPS://A.Example:443/x"),
            ("http://a.example:80/", "http://a.example:/x"),
            ("http://[2001:db8::1]:8080/", "http://[2001:DB8::1]:8080/x"),
        ] {
            assert!(is_same(one, other), "{one} {other}");
        }
    }

    #[test]
    fn another_scheme_host_port_or_user_is_another_receiver_and_so_is_what_can_not_be_read() {
        for (one, other) in [
            ("https://a.example/", "http://a.example/"),
            ("https://a.example/", "https://b.example/"),
            ("https://a.example/", "https://a.example.b.example/"),
            ("https://a.example/", "https://a.example:8443/"),
            ("https://a.example/", "https://a.example:80/"),
            ("https://a.example/", "https://a.example@b.example/"),
            ("https://a.example/", "https://a.example\\@b.example/"),
            ("https://a.example/", "https://b.example?https://a.example/"),
            ("http://[::1]/", "http://[::443]/"),
            ("https:/a.example/", "https:/a.example/"),
            ("", ""),
        ] {
            assert!(!is_same(one, other), "{one} {other}");
        }
    }
}
