//! Searches over all nodes of all views.

use std::collections::BTreeSet;

use topology::*;

use crate::world::*;

fn search(world: &mut World, words: &str, limit: usize, after: Option<SearchCursor>) -> SearchPage {
    let now = world.now;
    world.map.search(now, &SearchQuery { query: Query::parse(words).unwrap(), view: None, after, limit })
}

/// View, id and score of everything that a search finds.
pub(crate) fn found(world: &mut World, words: &str) -> BTreeSet<(View, NodeId, u32)> {
    let page = search(world, words, 1_000, None);
    assert_eq!(page.total, page.hits.len() as u64);
    assert_eq!(page.total, page.totals.iter().map(|(_, total)| total).sum::<u64>());
    page.hits.into_iter().map(|hit| (hit.view, hit.id, hit.score)).collect()
}

/// The same by a look at every node.
pub(crate) fn looked_through(world: &mut World, words: &str) -> BTreeSet<(View, NodeId, u32)> {
    let query = Query::parse(words).unwrap();
    let mut found = BTreeSet::new();
    for view in View::ALL {
        let snapshot = world.snapshot(view, Filter::NONE);
        let matching = snapshot.nodes.iter().filter_map(|(id, node)| Some((view, id.clone(), query.find(node.summary())?.score)));
        found.extend(matching);
    }
    found
}

fn shop() -> World {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.connect("b", &["10.0.0.2/24"]);
    world.report("a", containers(vec![container("c1", "Café", "team/web:1"), container("c2", "東京", "team/db:2")]));
    world.report("a", processes(vec![contained(1, "nginx", "c1"), contained(2, "postgres", "c2")]));
    world.report("b", processes(vec![process(3, "nginx"), process(4, "nginx-helper")]));
    world.report("a", flows(vec![client(1, 1, "10.0.0.1", "8.8.8.8", 443)]));
    world
}

fn lines(page: &SearchPage) -> Vec<String> {
    page.hits.iter().map(|hit| format!("{} {}", hit.view.id(), hit.id)).collect()
}

#[test]
fn the_best_comes_first_and_of_equals_what_there_is_little_of() {
    let mut world = shop();
    let page = search(&mut world, "nginx", 10, None);
    assert_eq!(
        lines(&page),
        ["processes-by-name nginx", "processes a;1", "processes b;3", "processes-by-name nginx-helper", "processes b;4"]
    );
    assert_eq!(page.totals, [(View::Processes, 3), (View::ProcessesByName, 2)]);
    assert_eq!(page.hits[0].matches[0], Match { field: "label".into(), text: "nginx".into(), skipped: 0, ranges: vec![(0, 5)] });
    assert_eq!(lines(&search(&mut world, "cafe", 10, None))[0], "containers c1;<container>");
    assert_eq!(lines(&search(&mut world, "label: ^東京$", 10, None)), ["containers c2;<container>"]);
    assert!(lines(&search(&mut world, "internet", 10, None)).contains(&"processes out-theinternet".to_owned()));
}

#[test]
fn pages_follow_each_other_while_nodes_come_and_go() {
    let mut world = shop();
    let whole = lines(&search(&mut world, "nginx OR postgres", 100, None));
    let mut paged = Vec::new();
    let mut after = None;
    loop {
        let page = search(&mut world, "nginx OR postgres", 2, after);
        paged.extend(lines(&page));
        assert_eq!(page.total, whole.len() as u64);
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(paged, whole);
    let first = search(&mut world, "nginx", 1, None);
    world.report("b", processes(vec![process(9, "nginx")]));
    world.report("b", Report { processes_gone: vec![key(3)], ..Report::default() });
    world.pass(WINDOW);
    let rest = search(&mut world, "nginx", 100, first.next);
    assert_eq!(lines(&rest), ["processes a;1", "processes b;9", "processes-by-name nginx-helper", "processes b;4"]);
}

#[test]
fn the_index_follows_what_changes() {
    let mut world = shop();
    for words in ["nginx", "postgres", "café", "hosts:b", "NOT nginx", "pid >= 3", "web", "8.8.8.8|internet", "image tag: 1"] {
        assert_eq!(found(&mut world, words), looked_through(&mut world, words), "{words}");
    }
    world.report("a", containers(vec![container("c1", "renamed", "team/web:2")]));
    world.report("a", Report { containers_gone: vec!["c2".into()], ..Report::default() });
    world.report("a", processes(vec![contained(1, "caddy", "c1")]));
    for words in ["nginx", "caddy", "café", "renamed", "東京", "uncontained", "image tag: 2"] {
        assert_eq!(found(&mut world, words), looked_through(&mut world, words), "{words}");
    }
    world.disconnect("a", StreamEnd::Goodbye);
    world.disconnect("b", StreamEnd::Goodbye);
    assert_eq!(search(&mut world, "NOT nosuch", 10, None), SearchPage::default());
}

#[test]
fn a_search_that_may_not_go_on_ends_between_two_pieces_of_work() {
    let mut world = World::new();
    world.connect("a", &["10.0.0.1/24"]);
    world.report("a", processes((1..40).map(|pid| process(pid, &format!("/usr/bin/program-{pid}"))).collect()));
    let now = world.now;
    for words in ["program-1", "[0-9]{2}", "name: x", "pid > 7", "cpu > 1", "NOT a AND [a-z]+", "a OR [b-c]", "program"] {
        let query = SearchQuery { query: Query::parse(words).unwrap(), view: None, after: None, limit: 100 };
        let asked = std::cell::Cell::new(0);
        let count = || {
            asked.set(asked.get() + 1);
            true
        };
        let whole = world.map.search_within(now, &query, &count).unwrap();
        assert_eq!(whole, world.map.search(now, &query), "{words}");
        let times = asked.get();
        assert!(times > 2, "{words}: asked {times} times");
        // Wherever it is told to end, it does, and the next one is none the worse for it.
        for patience in (0..times).step_by(3) {
            asked.set(0);
            let until = || {
                asked.set(asked.get() + 1);
                asked.get() <= patience
            };
            assert_eq!(world.map.search_within(now, &query, &until), Err(SearchTooLong), "{words} after {patience}");
            assert!(asked.get() <= patience + 300, "{words}: asked {} times more", asked.get() - patience);
        }
        assert_eq!(world.map.search(now, &query), whole);
    }
}

#[test]
fn one_view_can_be_searched_alone() {
    let mut world = shop();
    let now = world.now;
    let mut in_view = |view| {
        let query = SearchQuery { query: Query::parse("nginx").unwrap(), view: Some(view), after: None, limit: 10 };
        world.map.search(now, &query).total
    };
    assert_eq!((in_view(View::ProcessesByName), in_view(View::Containers), in_view(View::Weave)), (2, 0, 0));
}
