//! Auth chains of states against a walk over all events, and what a change of state costs.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
};

use myelin_state::{AuthEvents, ChainCache, Root, auth_difference, full_auth_chain};
use myelin_types::{EventNum, StateKeyNum};
use proptest::{collection::vec, prelude::*};

use crate::support::{Chance, Memory};

/// Which events name which.
#[derive(Debug, Default)]
struct Citations {
    named: BTreeMap<EventNum, Vec<EventNum>>,
    /// How many events were looked at.
    asked: Cell<usize>,
}

impl AuthEvents for Citations {
    type Error = Infallible;

    fn auth_events(&self, events: &[EventNum]) -> Result<Vec<Vec<EventNum>>, Infallible> {
        self.asked.set(self.asked.get() + events.len());
        let named = |event: &EventNum| self.named.get(event).cloned().unwrap_or_default();
        Ok(events.iter().map(named).collect())
    }
}

impl Citations {
    /// The full auth chain of a state, by walking.
    fn walk(&self, state: &BTreeMap<StateKeyNum, EventNum>) -> BTreeSet<u64> {
        let mut chain: BTreeSet<u64> = state.values().map(|event| event.0).collect();
        let mut left: Vec<EventNum> = state.values().copied().collect();
        while let Some(event) = left.pop() {
            for cited in self.named.get(&event).into_iter().flatten() {
                if chain.insert(cited.0) {
                    left.push(*cited);
                }
            }
        }
        chain
    }
}

/// For each event which earlier ones it names, as shares of what there is.
fn citations() -> impl Strategy<Value = Vec<Vec<prop::sample::Index>>> {
    vec(vec(any::<prop::sample::Index>(), 0..4), 1..120)
}

/// Which event stands under which key in each of some states.
fn states() -> impl Strategy<Value = Vec<Vec<(u32, prop::sample::Index)>>> {
    vec(
        vec((0..200_u32, any::<prop::sample::Index>()), 0..150),
        1..5,
    )
}

proptest! {
    #[test]
    fn chains_and_their_difference_are_those_of_a_walk(
        citations in citations(),
        states in states(),
        // So small that sets fall out while they are in use, or large enough for all.
        capacity in prop::sample::select(vec![0_usize, 4096, 1 << 20]),
    ) {
        let mut graph = Citations::default();
        for (at, cited) in citations.iter().enumerate() {
            let earlier = |index: &prop::sample::Index| EventNum(index.index(at) as u64);
            let cited = if at == 0 { Vec::new() } else { cited.iter().map(earlier).collect() };
            graph.named.insert(EventNum(at as u64), cited);
        }
        let states: Vec<BTreeMap<StateKeyNum, EventNum>> = states
            .iter()
            .map(|entries| {
                let entry = |(key, event): &(u32, prop::sample::Index)| {
                    (StateKeyNum(*key), EventNum(event.index(citations.len()) as u64))
                };
                entries.iter().map(entry).collect()
            })
            .collect();
        let (mut memory, cache) = (Memory::default(), ChainCache::new(capacity));
        let roots: Vec<Root> = states.iter().map(|state| memory.build(state.clone())).collect();
        let walked: Vec<BTreeSet<u64>> = states.iter().map(|state| graph.walk(state)).collect();
        for (root, walked) in roots.iter().zip(&walked) {
            let chain = full_auth_chain(&memory, &graph, &cache, *root).expect("all is there");
            prop_assert_eq!(&chain.iter().collect::<BTreeSet<u64>>(), walked);
        }
        let in_all = |event: &&u64| walked.iter().all(|chain| chain.contains(event));
        let expected: BTreeSet<u64> =
            walked.iter().flatten().filter(|event| !in_all(event)).copied().collect();
        let found = auth_difference(&memory, &graph, &cache, &roots).expect("all is there");
        prop_assert_eq!(found.iter().collect::<BTreeSet<u64>>(), expected);
    }
}

#[test]
fn what_all_states_have_does_not_differ_because_more_rests_on_it_in_one() {
    // Everybody has the create event 0 and the member 1, on whom the topic 2 of the second state rests alone.
    let mut graph = Citations::default();
    for (event, cited) in [(0, vec![]), (1, vec![0]), (2, vec![0, 1])] {
        let cited = cited.into_iter().map(EventNum).collect();
        graph.named.insert(EventNum(event), cited);
    }
    let mut memory = Memory::default();
    let agreed = [0, 1].map(|event| (StateKeyNum(event), EventNum(u64::from(event))));
    let one = memory.build(agreed);
    let other = memory.build(agreed.into_iter().chain([(StateKeyNum(2), EventNum(2))]));
    let difference = auth_difference(&memory, &graph, &ChainCache::new(1 << 20), &[one, other]);
    let difference: Vec<u64> = difference.expect("all is there").iter().collect();
    assert_eq!(difference, [2]);
}

#[test]
fn a_circle_ends() {
    let mut graph = Citations::default();
    graph.named.insert(EventNum(1), vec![EventNum(2)]);
    graph.named.insert(EventNum(2), vec![EventNum(1)]);
    let mut memory = Memory::default();
    let root = memory.build([(StateKeyNum(1), EventNum(1))]);
    let chain = full_auth_chain(&memory, &graph, &ChainCache::new(1 << 20), root);
    assert!(chain.expect("all is there").contains(2));
}

#[test]
fn a_change_of_a_large_state_looks_at_few_events() {
    let mut graph = Citations::default();
    let mut memory = Memory::default();
    let mut chance = Chance(7);
    let mut state = BTreeMap::new();
    for at in 0..20_000_u64 {
        // Everybody's join names the first event and somebody's invitation.
        let inviter = EventNum(chance.below(at.max(1)));
        graph.named.insert(EventNum(at), vec![EventNum(0), inviter]);
        let key = StateKeyNum(StateKeyNum::MEMBER_BIT | (at as u32 * 3));
        state.insert(key, EventNum(at));
    }
    graph.named.insert(EventNum(0), Vec::new());
    let cache = ChainCache::new(64 << 20);
    let root = memory.build(state);
    full_auth_chain(&memory, &graph, &cache, root).expect("all is there");

    let changed = vec![(
        StateKeyNum(StateKeyNum::MEMBER_BIT + 3_000),
        Some(EventNum(20_000)),
    )];
    graph
        .named
        .insert(EventNum(20_000), vec![EventNum(0), EventNum(19_999)]);
    let other = memory.apply(root, &changed).root;
    graph.asked.set(0);
    let difference = auth_difference(&memory, &graph, &cache, &[root, other]);
    // Only the change is new to one of them: 19,999, which authorises it and nothing else, both have.
    let difference = difference.expect("all is there");
    assert!(difference.contains(20_000) && !difference.contains(19_999));
    assert!(graph.asked.get() < 200, "{} events", graph.asked.get());
}
