//! What is followed arrives at the pace of whoever reads it.

use std::time::Duration;

use realm_rpc::{ErrorCode, Limits, LogQuery, Sighting};
use tokio::sync::mpsc;

use crate::scene::{key, line, run, scene, survey};

#[test]
fn logs_arrive_in_order_and_end() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let (to, mut from) = mpsc::channel(1);
        let query = LogQuery {
            tail: Some(100),
            ..LogQuery::default()
        };
        let read = async {
            let mut lines = Vec::new();
            while let Some(more) = from.recv().await {
                lines.extend(more);
            }
            lines
        };
        let (ended, lines) = tokio::join!(operator.logs(&query, to), read);
        ended.unwrap();
        assert_eq!(lines, (0..100).map(line).collect::<Vec<_>>());
    });
}

#[test]
fn a_slow_reader_holds_the_sender_back() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let (to, mut from) = mpsc::channel(1);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let mut follow = Box::pin(operator.logs(&query, to));
        for taken in 1..=20 {
            tokio::select! {
                ended = &mut follow => panic!("{ended:?}"),
                lines = from.recv() => assert_eq!(lines.unwrap()[0], line(taken - 1)),
            }
            // Other calls are answered meanwhile, and give the sender every chance to run ahead.
            for _ in 0..5 {
                operator.head().await.unwrap();
            }
            let ahead = scene.node.control.lines_taken.get() - taken;
            assert!(ahead <= 1, "{ahead} lines ahead of the reader");
        }
    });
}

#[test]
fn a_follower_that_leaves_ends_the_call() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let (to, mut from) = mpsc::channel(1);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let read = async {
            from.recv().await.unwrap();
            drop(from);
        };
        let (ended, ()) = tokio::join!(operator.logs(&query, to), read);
        ended.unwrap();
    });
}

#[test]
fn a_follower_that_stops_reading_is_given_up() {
    run(async {
        let scene = scene(Limits {
            call: Duration::from_millis(50),
            ..Limits::default()
        });
        let operator = scene.operator().await;
        let (to, from) = mpsc::channel(1);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        operator.logs(&query, to).await.unwrap();
        drop(from);
    });
}

#[test]
fn what_is_followed_ends_with_the_authority() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let (to, mut from) = mpsc::channel(1);
        let query = LogQuery {
            follow: true,
            ..LogQuery::default()
        };
        let read = async {
            from.recv().await.unwrap();
            scene.node.epoch.send_replace(4);
            // What was under way may still come; then it ends.
            while from.recv().await.is_some() {}
        };
        let (ended, ()) = tokio::join!(operator.logs(&query, to), read);
        assert_eq!(ended.unwrap_err().code, ErrorCode::NotAuthorised);
    });
}

#[test]
fn surveys_and_events_are_followed_too() {
    run(async {
        let scene = scene(Limits::default());
        let operator = scene.operator().await;
        let (to, mut from) = mpsc::channel::<realm_rpc::Survey>(1);
        let read = async {
            for revision in 0..3 {
                assert_eq!(from.recv().await.unwrap(), survey(revision));
            }
            drop(from);
        };
        let (ended, ()) = tokio::join!(operator.watch(to), read);
        ended.unwrap();

        let (to, mut from) = mpsc::channel::<Vec<realm_rpc::Event>>(1);
        operator.events(41, false, to).await.unwrap();
        let events = from.recv().await.unwrap();
        assert_eq!((events[0].seq, events[0].kind.as_str()), (42, "joined"));
    });
}

#[test]
fn a_watched_survey_is_whole_however_it_came() {
    run(async {
        let scene = scene(Limits::default());
        let told = &scene.node.control.surveys;
        // Too much for one message: five nodes with the largest report.
        let mut first = survey(0);
        for n in 20..25 {
            let report = vec![n; realm_manifest::report::MAX_REPORT_BYTES];
            let sighting = Sighting {
                report: Some(report.into()),
                ..Sighting::default()
            };
            first.nodes.insert(key(n).public(), sighting);
        }
        // One leaves, one has a new view, one a new report, one a new claim, and one comes.
        let mut second = first.clone();
        second.forked = true;
        second.nodes.remove(&key(20).public());
        let changed = |n: u8| key(n).public();
        second.nodes.entry(changed(21)).and_modify(|one| {
            one.view.present = true;
        });
        second.nodes.entry(changed(22)).and_modify(|one| {
            one.report = None;
        });
        second.nodes.entry(changed(23)).and_modify(|one| {
            one.claims.push(vec![7; 9000]);
        });
        second.nodes.insert(key(30).public(), Sighting::default());
        *told.borrow_mut() = vec![first.clone(), second.clone(), first.clone()];
        let operator = scene.operator().await;
        assert_eq!(operator.survey().await.unwrap(), first);
        let (to, mut from) = mpsc::channel::<realm_rpc::Survey>(1);
        let read = async {
            for wanted in [&first, &second, &first, &survey(0), &survey(1)] {
                let came = from.recv().await.unwrap();
                assert!(came == *wanted, "a survey came otherwise than it was told");
            }
            drop(from);
        };
        let (ended, ()) = tokio::join!(operator.watch(to), read);
        ended.unwrap();
    });
}
