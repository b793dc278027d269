//! What the report calls things, and what it says of each scenario.

/// One scenario as the report presents it.
pub(crate) struct Scenario {
    /// As in the figures.
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    /// What is done, at full size.
    pub(crate) what: &'static str,
    /// What the figures mean that the general words of the page do not say.
    pub(crate) how: &'static str,
    /// The metrics of its chart.
    pub(crate) charted: &'static [&'static str],
}

/// In the order of the page.
pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "send",
        title: "Sending into one room",
        what: "32 senders in one room. Each sends messages of 1 KB and waits for the answer before it sends the next.",
        how: "Throughput, answers, CPU and memory are taken while nobody syncs. Then one more member long-polls `/sync`, and *send to \
              sync* is the time from the beginning of a send to the arrival of its event there. An event that a server leaves out since \
              the room had too much news counts as arrived with the answer that left it out; how many did is shown. Disk is of all \
              messages of both parts.",
        charted: &["throughput", "cpu", "answer_p99", "to_sync_p50"],
    },
    Scenario {
        name: "send_many_rooms",
        title: "Sending into many rooms",
        what: "100 rooms with one sender each, and not fewer than 32 at any scale. Otherwise as above.",
        how: "As *sending into one room*.",
        charted: &["throughput", "cpu", "answer_p99", "to_sync_p50"],
    },
    Scenario {
        name: "fan_out",
        title: "Fan-out",
        what: "One room with 500 members, all of them long-polling `/sync`. One more member sends messages of 1 KB, one after the \
              other.",
        how: "*Send to the last sync* is the time from the beginning of a send until the last member has the message, over some 20 \
              messages. CPU is of a message with all its deliveries. The driver takes all those answers off the same cores, and the \
              figure holds its work too.",
        charted: &["to_sync_p50", "to_sync_max", "cpu"],
    },
    Scenario {
        name: "initial_sync",
        title: "First sync",
        what: "One user in 1,000 rooms with 50 events each. The first `/sync`, with lazy-loaded members; then incremental ones, \
               with nothing new and with one new event.",
        how: "The first sync is the first that this user ever makes. *A second user* is in the same rooms and asks right after; *cached* \
              is the first user's request once more. The incremental ones do not wait (`timeout=0`); those with nothing new are repeated \
              for seconds, in turn with those of a user who is in a tenth of the rooms.",
        charted: &["first", "nothing_new", "one_event", "cpu_nothing_new"],
    },
    Scenario {
        name: "history",
        title: "History",
        what: "`/messages` backwards through a room of 100,000 events, page by page.",
        how: "A page has 100 messages. Throughput is in messages. *Filling* is how fast they were sent before, while nobody synced. \
              Every message has to come exactly once.",
        charted: &["throughput", "answer_p50", "answer_p99", "cpu"],
    },
    Scenario {
        name: "big_room",
        title: "A big room",
        what: "A room with 10,000 members, who joined one after the other through the API. Then messages, `/members`, a first sync, \
               and one more join.",
        how: "The CPU of a message is taken while nobody syncs, in turn with a room of two. *First sync* is of somebody who is in no \
              other room. Several of each are made, and the median counts.",
        charted: &["join", "members", "first", "cpu"],
    },
    Scenario {
        name: "state_churn",
        title: "State churn",
        what: "20,000 state events in one room.",
        how: "Four users send. Half of the events have a state key that is new, the others overwrite one. Disk is what the data have \
              grown by, per event, after a stop; the event's own JSON is in it.",
        charted: &["throughput", "answer_p50", "cpu", "disk_per_state_event"],
    },
    Scenario {
        name: "login",
        title: "Logins",
        what: "200 logins with a password.",
        how: "Eight at once, each on a new connection and a new device. How hard the server hashes passwords is its own choice, and \
              decides most of it.",
        charted: &["throughput", "answer_p50", "cpu"],
    },
    Scenario {
        name: "idle",
        title: "Idle clients",
        what: "200 clients that long-poll `/sync` while nothing happens.",
        how: "The server is started anew before. Memory is the highest seen while they wait; CPU is milliseconds a second for all of \
              them.",
        charted: &["peak_rss"],
    },
    Scenario {
        name: "restart",
        title: "Restart",
        what: "The server is stopped and started with the data of all scenarios above.",
        how: "From the start of the process to the first answered incremental `/sync`, and then to the first answered initial one; five \
              times, the median. The database, where it is a process of its own, runs on.",
        charted: &["first", "initial"],
    },
    Scenario {
        name: "all",
        title: "The whole set",
        what: "All scenarios above together, filling included.",
        how: "The highest memory in any of them, and all CPU time.",
        charted: &["peak_rss", "cpu"],
    },
];

/// The title of a server.
pub(crate) fn server(name: &str) -> String {
    match name {
        "floor" => "floor".to_owned(),
        "myelin" => "Myelin".to_owned(),
        other => {
            let mut letters = other.chars();
            let first = letters.next().into_iter().flat_map(char::to_uppercase);
            first.chain(letters).collect()
        }
    }
}

/// What a metric of a scenario is called.
pub(crate) fn metric(scenario: &str, name: &str) -> String {
    let known = match (scenario, name) {
        ("fan_out", "to_sync_p50") => "send to the last sync, median",
        ("fan_out", "to_sync_p99") => "send to the last sync, 99 %",
        ("fan_out", "to_sync_max") => "send to the last sync, longest",
        ("restart", "first") => "start to the first answered sync",
        ("restart", "answer_max") => "the same, longest",
        ("restart", "initial") => "start to an answered initial sync",
        ("all", "cpu") => "CPU of server and database",
        ("login", "cpu") => "CPU per login",
        ("send" | "send_many_rooms", "cpu") => "CPU per event",
        ("fan_out" | "big_room", "cpu") => "CPU per message",
        ("state_churn", "cpu") => "CPU per state event",
        ("history", "cpu") => "CPU per page",
        (_, "throughput") => "throughput",
        (_, "answer_p50") => "answer, median",
        (_, "answer_p95") => "answer, 95 %",
        (_, "answer_p99") => "answer, 99 %",
        (_, "answer_max") => "answer, longest",
        (_, "to_sync_p50") => "send to sync, median",
        (_, "to_sync_p99") => "send to sync, 99 %",
        (_, "to_sync_seen") => "events seen in the sync",
        ("history", "fill") => "filling",
        (_, "fill_joins") => "joins while filling",
        (_, "to_sync_skipped") => "events left out of the sync",
        (_, "first") => "first sync",
        (_, "first_bytes") => "size of the first sync",
        (_, "first_other") => "first sync, a second user",
        (_, "first_cached") => "first sync, cached",
        (_, "cpu_first") => "CPU per first sync",
        (_, "cpu_one_event") => "CPU per sync with one new event",
        (_, "nothing_new_tenth") => "sync with nothing new, a tenth of the rooms",
        (_, "members_bytes") => "size of `/members`",
        (_, "nothing_new") => "sync with nothing new",
        (_, "one_event") => "sync with one new event",
        (_, "cpu") => "CPU",
        (_, "cpu_nothing_new") => "CPU per sync with nothing new",
        (_, "cpu_nothing_new_tenth") => "CPU per sync with nothing new, a tenth of the rooms",
        (_, "cpu_resolution") => "resolution of these CPU figures",
        (_, "cpu_small_room") => "CPU per message in a room of two",
        ("send" | "send_many_rooms", "driver_cpu") => "CPU of the driver per event",
        ("fan_out", "driver_cpu") => "CPU of the driver per message",
        (_, "driver_cpu") => "CPU of the driver",
        (_, size) if size.starts_with("size_") => "size",
        (_, "peak_rss") => "highest memory",
        (_, "disk_per_event") => "disk per event",
        (_, "disk_per_state_event") => "disk per state event",
        (_, "event_json") => "JSON of one such event",
        (_, "members") => "`/members`",
        (_, "join") => "one more join",
        (_, other) => return other.replace('_', " "),
    };
    known.to_owned()
}

/// Whether more of it is better; of everything else less is.
pub(crate) fn more_is_better(metric: &str) -> bool {
    matches!(
        metric,
        "throughput" | "fill" | "fill_joins" | "to_sync_seen"
    )
}

/// Where a metric stands in a table: what the scenario is about, then what it costs.
pub(crate) fn rank(metric: &str) -> usize {
    const ORDER: [&str; 13] = [
        "throughput",
        "answer_",
        "to_sync_",
        "first",
        "nothing_new",
        "one_event",
        "",
        "cpu",
        "driver_cpu",
        "peak_rss",
        "disk_",
        "event_json",
        "fill",
    ];
    const OTHERS: usize = 6;
    let found = ORDER
        .iter()
        .position(|begin| !begin.is_empty() && metric.starts_with(begin));
    found.unwrap_or(OTHERS)
}
