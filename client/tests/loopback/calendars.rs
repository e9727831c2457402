//! Calendars against a node that answers when and as the test says.

use crate::node::{Node, NodeSession, patiently};
use tickwheel_client::{Client, ClientConfig, Lane, RefusalCode, RequestError};
use tickwheel_wire::{
    JobId, PartitionId, Timestamp,
    frame::{
        request::{CalendarView, Done, JobByName, ListCalendars, PageEnd, RemoveCalendar, SetCalendar},
        session::Refused,
    },
};

async fn connect(node: &Node, partitions: &[u16]) -> (Client, NodeSession) {
    let ports = [node.address().port()];
    let session = node.welcome_to(0, &ports, partitions);
    let (client, session) = tokio::join!(Client::connect(ClientConfig::new(node.peer())), session);
    (client.unwrap(), session)
}

async fn done(session: &mut NodeSession, request_id: u64) {
    session.send(Lane::Control, &Done { request_id, job: JobId::default(), next_fire: Timestamp::MAX }).await;
}

async fn refuse(session: &mut NodeSession, request_id: u64, code: RefusalCode) {
    session.send(Lane::Control, &Refused { request_id, code, detail: 0, field: "", message: "no" }).await;
}

/// The next requests to set the calendar: id and partition.
async fn sets(session: &mut NodeSession, count: usize) -> Vec<(u64, u16)> {
    let mut requests = Vec::new();
    for _ in 0..count {
        let frame = session.receive(Lane::Control).await;
        let set: SetCalendar<'_> = frame.decode();
        assert_eq!((set.tenant, set.name, set.exclusions), ("acme", "holidays", "12-25"));
        requests.push((set.request_id, set.partition.0));
    }
    requests
}

/// Asks for a job, which the node hears next if nothing else is under way to it.
async fn nothing_waits(client: &Client, session: &mut NodeSession) {
    let serve = async {
        let frame = session.receive(Lane::Control).await;
        refuse(session, frame.decode::<JobByName<'_>>().request_id, RefusalCode::UnknownJob).await;
    };
    let (answer, ()) = tokio::join!(client.get("none"), serve);
    assert_eq!(answer.unwrap_err().refusal_code(), Some(RefusalCode::UnknownJob));
}

#[tokio::test]
async fn a_calendar_is_set_in_every_partition_and_last_where_it_is_read() {
    let node = Node::new();
    let (client, mut session) = connect(&node, &[0; 32]).await;
    let serve = async {
        let first = sets(&mut session, 16).await;
        assert!(first.iter().map(|(_, partition)| *partition).eq((16..32).rev()));
        nothing_waits(&client, &mut session).await;
        for (request_id, _) in first {
            done(&mut session, request_id).await;
        }
        let second = sets(&mut session, 15).await;
        assert!(second.iter().map(|(_, partition)| *partition).eq((1..16).rev()));
        nothing_waits(&client, &mut session).await;
        for (request_id, _) in second {
            done(&mut session, request_id).await;
        }
        let last = sets(&mut session, 1).await;
        assert_eq!(last[0].1, 0);
        done(&mut session, last[0].0).await;
    };
    let (set, ()) = patiently(async { tokio::join!(client.set_calendar("holidays", "12-25"), serve) }).await;
    assert_eq!(set, Ok(()));
}

#[tokio::test]
async fn a_lost_session_repeats_what_was_not_answered() {
    let node = Node::new();
    let (client, mut first) = connect(&node, &[0; 4]).await;
    let serve = async {
        let sent = sets(&mut first, 3).await;
        first.lose();
        let mut second = node.welcome().await;
        let mut again = sets(&mut second, 3).await;
        again.sort_by_key(|(_, partition)| std::cmp::Reverse(*partition));
        assert_eq!(again, sent);
        for (request_id, _) in again {
            done(&mut second, request_id).await;
        }
        let last = sets(&mut second, 1).await;
        done(&mut second, last[0].0).await;
        second
    };
    let (set, _second) = patiently(async { tokio::join!(client.set_calendar("holidays", "12-25"), serve) }).await;
    assert_eq!(set, Ok(()));
}

#[tokio::test]
async fn a_refusal_ends_a_change_but_a_partition_that_no_shard_holds_does_not() {
    let node = Node::new();
    let (client, mut session) = connect(&node, &[0; 4]).await;
    for (code, goes_on) in [(RefusalCode::InvalidField, false), (RefusalCode::NotOwner, true)] {
        let serve = async {
            let sent = sets(&mut session, 3).await;
            for (request_id, partition) in sent {
                match partition {
                    3 => refuse(&mut session, request_id, code).await,
                    _ => done(&mut session, request_id).await,
                }
            }
            if goes_on {
                let last = sets(&mut session, 1).await;
                done(&mut session, last[0].0).await;
            }
        };
        let (set, ()) = patiently(async { tokio::join!(client.set_calendar("holidays", "12-25"), serve) }).await;
        assert_eq!(set.unwrap_err().refusal_code(), Some(code));
        nothing_waits(&client, &mut session).await;
    }
}

#[tokio::test]
async fn a_calendar_is_removed_if_any_partition_had_it() {
    let node = Node::new();
    let (client, mut session) = connect(&node, &[0; 2]).await;
    for had in [[true, true], [true, false], [false, true], [false, false]] {
        let serve = async {
            for (partition, had) in [1, 0].into_iter().zip(had) {
                let frame = session.receive(Lane::Control).await;
                let remove: RemoveCalendar<'_> = frame.decode();
                assert_eq!(
                    (remove.tenant, remove.name, remove.partition),
                    ("acme", "holidays", PartitionId(partition))
                );
                match had {
                    true => done(&mut session, remove.request_id).await,
                    false => refuse(&mut session, remove.request_id, RefusalCode::UnknownCalendar).await,
                }
            }
        };
        let (removed, ()) = patiently(async { tokio::join!(client.remove_calendar("holidays"), serve) }).await;
        let code = removed.err().and_then(|error| error.refusal_code());
        assert_eq!(code, (!had.contains(&true)).then_some(RefusalCode::UnknownCalendar), "{had:?}");
    }
}

#[tokio::test]
async fn calendars_are_read_from_one_partition_page_by_page() {
    let node = Node::new();
    let (client, mut session) = connect(&node, &[0; 4]).await;
    let serve = async {
        for (cursor, name, next) in [(0, "a", 9), (9, "b", PageEnd::LAST)] {
            let frame = session.receive(Lane::Control).await;
            let list: ListCalendars<'_> = frame.decode();
            assert_eq!((list.tenant, list.partition, list.cursor), ("acme", PartitionId(0), cursor));
            let request_id = list.request_id;
            let view = CalendarView { request_id, tenant: "acme", name, exclusions: "12-25\nSAT" };
            session.send(Lane::Control, &view).await;
            session.send(Lane::Control, &PageEnd { request_id, cursor: next }).await;
        }
        nothing_waits(&client, &mut session).await;
    };
    let list = client.calendars().unwrap().collect();
    let (calendars, ()) = patiently(async { tokio::join!(list, serve) }).await;
    let calendars = calendars.unwrap();
    assert!(calendars.iter().map(|calendar| &*calendar.name).eq(["a", "b"]));
    assert!(calendars.iter().all(|calendar| (&*calendar.tenant, &*calendar.exclusions) == ("acme", "12-25\nSAT")));
}

#[tokio::test]
async fn what_is_too_long_is_refused_before_it_is_sent() {
    let node = Node::new();
    let (client, mut session) = connect(&node, &[0; 4]).await;
    let too_long = |field, bytes, bytes_max| Err(RequestError::TooLong { field, bytes, bytes_max });
    let (name, text) = ("n".repeat(65), "1".repeat((16 << 10) + 1));
    assert_eq!(client.set_calendar(&name, "").await, too_long("name", 65, 64));
    assert_eq!(client.remove_calendar(&name).await, too_long("name", 65, 64));
    assert_eq!(client.set_calendar("a", &text).await, too_long("exclusions", 16_385, 16_384));
    nothing_waits(&client, &mut session).await;
}
