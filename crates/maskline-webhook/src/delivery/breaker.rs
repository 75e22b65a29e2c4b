//! The circuit breaker of an endpoint: after failures in a row it is left alone for a while, and
//! then asked with one attempt.
//!
//! It only delays: it makes no attempt, counts none, and never uses up an event's retries. It
//! keeps no time and no places itself; `turns` asks it what may be started.

use std::time::Duration;

use maskline_events::Timestamp;

use super::schedule::{jittered, ms};

/// When an endpoint is left alone, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Failures (no answer, 5xx or 429) without a 2xx in between that open it.
    pub failures: u32,
    /// The first pause; each that follows on a failed probe is twice as long.
    pub pause: Duration,
    /// The longest pause.
    pub longest_pause: Duration,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failures: 8,
            pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(60),
        }
    }
}

/// What an attempt says about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// 2xx.
    Well,
    /// 5xx or 429: it answers, and would rather be left alone.
    Failing,
    /// Another answer: what was asked is at fault, not the endpoint.
    Answered,
    /// No whole answer.
    Silent,
    /// The store could not say where to send.
    Unknown,
    /// There is no enabled webhook.
    Absent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Breaker {
    /// Attempts go on; so many failed since the last 2xx.
    Closed { failures: u32 },
    /// Nothing is started until then; so many pauses went before.
    Open { until: Timestamp, pauses: u32 },
    /// One attempt at a time.
    HalfOpen { pauses: u32 },
}

impl Breaker {
    /// Whether attempts go on as usual.
    pub(crate) const fn is_closed(self) -> bool {
        matches!(self, Self::Closed { .. })
    }
}

impl Breaker {
    pub(crate) const NEW: Self = Self::Closed { failures: 0 };

    /// How it stands after an attempt ended; `jitter_permille` spreads the pause.
    pub(crate) fn ended(
        self,
        now: Timestamp,
        health: Health,
        jitter_permille: i16,
        config: &BreakerConfig,
    ) -> Self {
        let open = |pauses: u32| {
            let doubled = ms(config.pause).saturating_mul(1 << pauses.min(16));
            let pause = doubled.min(ms(config.longest_pause));
            Self::Open {
                until: now.plus_ms(jittered(pause, jitter_permille)),
                pauses,
            }
        };
        match (self, health) {
            (_, Health::Well | Health::Absent) => Self::NEW,
            (_, Health::Unknown) => self,
            (Self::Closed { failures }, Health::Failing | Health::Silent) => {
                let failures = failures.saturating_add(1);
                if failures >= config.failures {
                    open(0)
                } else {
                    Self::Closed { failures }
                }
            }
            (Self::HalfOpen { pauses }, Health::Failing | Health::Silent) => {
                open(pauses.saturating_add(1))
            }
            // These were started before it opened, and are no news.
            (Self::Open { .. }, Health::Failing | Health::Silent | Health::Answered)
            | (Self::Closed { .. }, Health::Answered) => self,
            (Self::HalfOpen { .. }, Health::Answered) => Self::NEW,
        }
    }

    /// How it stands at this time.
    pub(crate) fn elapsed(self, now: Timestamp) -> Self {
        match self {
            Self::Open { until, pauses } if until <= now => Self::HalfOpen { pauses },
            Self::Open { .. } | Self::Closed { .. } | Self::HalfOpen { .. } => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_unix_ms(1_767_694_639_000);

    fn after(breaker: Breaker, healths: &[Health]) -> Breaker {
        let config = BreakerConfig::default();
        healths.iter().fold(breaker, |breaker, health| {
            breaker.ended(NOW, *health, 0, &config)
        })
    }

    #[test]
    fn eight_failures_without_a_2xx_in_between_open_it() {
        use Health::{Answered, Failing, Silent, Unknown, Well};
        for (healths, opens) in [
            (&[Silent; 7][..], false),
            (&[Silent; 8], true),
            (&[Failing; 8], true),
            (&[Answered; 50], false),
            (&[Unknown; 50], false),
            (
                &[
                    Silent, Failing, Silent, Failing, Answered, Unknown, Silent, Silent, Silent,
                    Silent,
                ],
                true,
            ),
            (
                &[
                    Silent, Silent, Silent, Silent, Silent, Well, Silent, Silent, Silent,
                ],
                false,
            ),
        ] {
            let open = matches!(after(Breaker::NEW, healths), Breaker::Open { .. });
            assert_eq!(open, opens, "{healths:?}");
        }
    }

    #[test]
    fn its_pauses_double_up_to_the_longest_and_a_2xx_closes_it() {
        let mut breaker = after(Breaker::NEW, &[Health::Silent; 8]);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let until = NOW.plus_ms(seconds * 1_000);
            assert!(
                matches!(breaker, Breaker::Open { until: at, .. } if at == until),
                "{breaker:?}"
            );
            assert_eq!(breaker.elapsed(until.plus_ms(-1)), breaker);
            let half_open = breaker.elapsed(until);
            assert!(matches!(half_open, Breaker::HalfOpen { .. }));
            assert_eq!(after(half_open, &[Health::Well]), Breaker::NEW);
            assert_eq!(after(half_open, &[Health::Answered]), Breaker::NEW);
            assert_eq!(after(half_open, &[Health::Unknown]), half_open);
            breaker = after(half_open, &[Health::Silent]);
        }
    }

    #[test]
    fn failures_that_were_under_way_when_it_opened_lengthen_no_pause() {
        let open = after(Breaker::NEW, &[Health::Silent; 8]);
        assert_eq!(after(open, &[Health::Silent; 30]), open);
        assert_eq!(after(open, &[Health::Well]), Breaker::NEW);
    }
}
