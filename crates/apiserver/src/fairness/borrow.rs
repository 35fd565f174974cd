//! How many seats each level has for now: levels lend what they do not need (KEP-1040, "Seat Borrowing").
//!
//! Pure: from what the levels are configured to have and what they wanted of late.

use std::time::Duration;

/// How often seats are dealt anew.
pub(super) const PERIOD: Duration = Duration::from_secs(10);
/// How slowly an earlier demand is forgotten: by half in five minutes.
const SMOOTHING: f64 = 0.977;
/// Smaller targets count as this one.
const MIN_TARGET: f64 = 0.001;
const EPSILON: f64 = 0.000_000_1;

/// What a level is configured to have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Bounds {
    /// By its shares.
    pub(super) nominal: usize,
    /// What it does not lend.
    pub(super) min: usize,
    /// With what it may borrow.
    pub(super) max: usize,
}

impl Bounds {
    /// From shares of all `seats`; percents of the nominal number.
    pub(super) fn new(
        seats: usize,
        shares: usize,
        all_shares: usize,
        lendable: Option<i32>,
        borrowing: Option<i32>,
    ) -> Self {
        let nominal = (seats * shares).div_ceil(all_shares.max(1));
        let part = |percent: i32| {
            let percent = f64::from(percent.max(0));
            to_seats(to_float(nominal) * percent / 100.0)
        };
        Self {
            nominal,
            min: nominal - lendable.map_or(0, part).min(nominal),
            max: nominal + borrowing.map_or(seats, part),
        }
    }

    /// What a new level has until its demand is known.
    pub(super) fn initial(&self) -> usize {
        self.nominal - (self.nominal - self.min) / 2
    }
}

/// What a level wanted over a while.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Observed {
    pub(super) over: Duration,
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) max: f64,
}

/// What a level wants, by and large.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Demand {
    pub(super) average: f64,
    pub(super) deviation: f64,
    pub(super) high_watermark: usize,
    pub(super) smoothed: f64,
}

impl Demand {
    /// With one more observation.
    pub(super) fn update(&mut self, seen: &Observed) {
        self.high_watermark = to_seats(seen.max);
        if seen.over.is_zero() {
            return;
        }
        self.average = seen.average;
        self.deviation = if seen.deviation.is_nan() { 0.0 } else { seen.deviation };
        let envelope = self.average + self.deviation;
        self.smoothed = envelope.max(SMOOTHING * self.smoothed + (1.0 - SMOOTHING) * envelope);
    }
}

/// A level that takes part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Party {
    pub(super) exempt: bool,
    pub(super) bounds: Bounds,
    pub(super) demand: Demand,
    /// What it has so far.
    pub(super) current: usize,
}

/// What a level gets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Dealt {
    pub(super) seats: usize,
    /// What it would get if there were no bounds.
    pub(super) target: f64,
}

impl Party {
    /// What it needs for now: its demand, but no more than is its own.
    fn floor(&self) -> usize {
        let wanted = self.demand.high_watermark;
        let wanted = if self.exempt { wanted } else { wanted.min(self.bounds.nominal) };
        wanted.max(self.bounds.min)
    }

    fn target(&self) -> f64 {
        to_float(self.floor()).max(self.demand.smoothed)
    }
}

/// Deals all seats: what each level gets, in the order of `parties`, and the part of its target that a level gets
/// whose bounds do not matter.
pub(super) fn adjust(parties: &[Party]) -> (Vec<Dealt>, f64) {
    let all: usize = parties.iter().map(|p| p.bounds.nominal).sum();
    let exempt: usize = parties.iter().filter(|p| p.exempt).map(Party::floor).sum();
    let left = all.saturating_sub(exempt);
    let limited: Vec<&Party> = parties.iter().filter(|p| !p.exempt).collect();
    let least: usize = limited.iter().map(|p| p.bounds.min).sum();
    let floors: usize = limited.iter().map(|p| p.floor()).sum();
    let mut fair = 0.0;
    let seats: Vec<usize> = if left <= least {
        limited.iter().map(|p| p.bounds.min).collect()
    } else if left <= floors {
        let share = to_float(left - least) / to_float(floors - least);
        let above = |p: &&Party| p.bounds.min + to_seats(to_float(p.floor() - p.bounds.min) * share);
        limited.iter().map(above).collect()
    } else {
        let classes: Vec<Class> = limited
            .iter()
            .map(|p| Class {
                target: p.target(),
                lower: to_float(p.floor()),
                upper: to_float(p.bounds.max.max(p.floor())),
            })
            .collect();
        match allocate(all, &classes) {
            Some((seats, part)) => {
                fair = part;
                seats.into_iter().map(to_seats).collect()
            }
            None => limited.iter().map(|p| p.current).collect(),
        }
    };
    let mut seats = seats.into_iter();
    let dealt = parties.iter().map(|p| {
        let seats = if p.exempt { p.floor() } else { seats.next().unwrap_or(p.current) };
        Dealt { seats, target: p.target() }
    });
    (dealt.collect(), fair)
}

/// One of those among whom something is shared out.
#[derive(Clone, Copy, Debug)]
struct Class {
    target: f64,
    lower: f64,
    upper: f64,
}

/// Shares out `sum` in proportion to the targets, but within the bounds: there is one proportion with which that
/// works out. `None` if there is none.
fn allocate(sum: usize, classes: &[Class]) -> Option<(Vec<f64>, f64)> {
    let sum = to_float(sum);
    let classes: Vec<Class> =
        classes.iter().map(|c| Class { target: c.target.max(MIN_TARGET), ..*c }).collect();
    let (lowest, highest) =
        classes.iter().fold((0.0, 0.0), |(low, high), class| (low + class.lower, high + class.upper));
    if lowest - sum > EPSILON || sum - highest > EPSILON {
        return None;
    }
    let with = |part: f64| -> Vec<f64> {
        classes.iter().map(|c| (c.target * part).clamp(c.lower, c.upper)).collect()
    };
    // Where some class meets a bound, and between two such places the total grows evenly.
    let mut places: Vec<f64> =
        classes.iter().flat_map(|c| [c.lower / c.target, c.upper / c.target]).collect();
    places.sort_by(f64::total_cmp);
    let mut before = places.first().copied()?;
    for place in places {
        let total: f64 = with(place).iter().sum();
        if total + EPSILON >= sum {
            let total_before: f64 = with(before).iter().sum();
            let rise = total - total_before;
            let part =
                if rise > 0.0 { before + (place - before) * (sum - total_before) / rise } else { place };
            return Some((with(part), part));
        }
        before = place;
    }
    None
}

/// Seats are few: no number of them is rounded.
fn to_float(seats: usize) -> f64 {
    f64::from(u32::try_from(seats).unwrap_or(u32::MAX))
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "rounded, and no seat is negative"
)]
fn to_seats(number: f64) -> usize {
    number.round().max(0.0) as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn party(nominal: usize, lendable: i32, borrowing: Option<i32>, wants: usize) -> Party {
        let bounds = Bounds::new(nominal, 1, 1, Some(lendable), borrowing.or(Some(1_000)));
        let seen = Observed { over: PERIOD, average: to_float(wants), deviation: 0.0, max: to_float(wants) };
        let mut demand = Demand::default();
        demand.update(&seen);
        Party { exempt: false, bounds, demand, current: bounds.initial() }
    }

    fn seats(parties: &[Party]) -> Vec<usize> {
        adjust(parties).0.iter().map(|dealt| dealt.seats).collect()
    }

    #[test]
    fn bounds_follow_from_shares_and_percents() {
        let bounds = Bounds::new(600, 30, 245, Some(33), None);
        assert_eq!(bounds, Bounds { nominal: 74, min: 50, max: 674 });
        assert_eq!(bounds.initial(), 62);
        assert_eq!(Bounds::new(600, 5, 245, None, Some(50)), Bounds { nominal: 13, min: 13, max: 20 });
    }

    #[test]
    fn who_needs_little_lends_to_who_needs_much() {
        // Nobody wants anything: all stay near their own.
        assert_eq!(seats(&[party(50, 50, None, 0), party(50, 50, None, 0)]), [50, 50]);
        // One wants all there is: it gets what the other lends, and no more.
        assert_eq!(seats(&[party(50, 50, None, 500), party(50, 50, None, 0)]), [75, 25]);
        assert_eq!(seats(&[party(50, 50, None, 500), party(50, 0, None, 0)]), [50, 50]);
        assert_eq!(seats(&[party(50, 50, Some(20), 500), party(50, 50, None, 0)]), [60, 40]);
        // Who lent gets it back as soon as it is wanted.
        assert_eq!(seats(&[party(50, 50, None, 500), party(50, 50, None, 500)]), [50, 50]);
        assert_eq!(seats(&[party(50, 50, None, 500), party(50, 50, None, 40)]), [60, 40]);
    }

    #[test]
    fn what_the_exempt_use_is_taken_from_what_others_lend() {
        let mut exempt = party(10, 0, None, 60);
        exempt.exempt = true;
        let others = [party(50, 50, None, 50), party(50, 50, None, 50)];
        // 110 less 60 are 50: just what the others do not lend.
        assert_eq!(seats(&[exempt, others[0], others[1]]), [60, 25, 25]);
        exempt.demand.high_watermark = 35;
        assert_eq!(seats(&[exempt, others[0], others[1]]), [35, 38, 38]);
    }

    #[test]
    fn demand_is_forgotten_slowly_and_noticed_at_once() {
        let mut demand = Demand::default();
        let seen = |average: f64| Observed { over: PERIOD, average, deviation: 0.0, max: average };
        demand.update(&seen(100.0));
        assert_eq!(demand.smoothed, 100.0);
        for _ in 0..30 {
            demand.update(&seen(0.0));
        }
        assert!((49.0..51.0).contains(&demand.smoothed), "{}", demand.smoothed);
        assert_eq!(demand.high_watermark, 0);
    }

    proptest! {
        #[test]
        fn all_seats_are_dealt_within_the_bounds(
            levels in prop::collection::vec((1_usize..200, 0_i32..=100, prop::option::of(0_i32..400), 0_usize..600), 1..9),
        ) {
            let parties: Vec<Party> = levels.iter().map(|(n, l, b, w)| party(*n, *l, *b, *w)).collect();
            let all: usize = parties.iter().map(|p| p.bounds.nominal).sum();
            let dealt = seats(&parties);
            for (party, seats) in parties.iter().zip(&dealt) {
                prop_assert!(*seats >= party.bounds.min && *seats <= party.bounds.max, "{party:?} has {seats}");
                // Who wants its own has it.
                prop_assert!(*seats >= party.demand.high_watermark.min(party.bounds.nominal));
            }
            let total: usize = dealt.iter().sum();
            // Rounding.
            prop_assert!(total.abs_diff(all) <= parties.len(), "{total} of {all}: {dealt:?}");
        }
    }
}
