//! `docs/protocol.md` says of the transport what the code does.

use tickwheel_net::{ALPN, CloseCode, LANE_COUNT, REASON_BYTES_MAX};

const DOCUMENT: &str = include_str!("../../docs/protocol.md");

/// The first two cells of each row of the first table behind the line `heading`, without the table's head.
fn table(heading: &str) -> Vec<(String, String)> {
    let lines = DOCUMENT.lines().skip_while(|line| *line != heading).skip_while(|line| !line.starts_with('|'));
    let rows = lines.take_while(|line| line.starts_with('|')).skip(2);
    let cells = |row: &str| {
        let mut cells = row.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
        Some((cells.next()?, cells.next()?))
    };
    rows.map(|row| cells(row).expect("a row has two cells")).collect()
}

#[test]
fn the_document_numbers_every_close_code() {
    let known: Vec<_> = CloseCode::ALL.iter().map(|code| (code.number().to_string(), format!("{code:?}"))).collect();
    assert_eq!(table("### CloseCode"), known);
}

#[test]
fn the_document_lists_every_lane_with_its_stream() {
    let lanes = table("### Lanes");
    assert_eq!(lanes.len(), LANE_COUNT);
    for (index, (lane, stream)) in lanes.iter().enumerate() {
        assert!(lane.starts_with(&index.to_string()), "{lane}");
        // Bidirectional streams of the client are every fourth of QUIC's stream ids.
        assert_eq!(*stream, (4 * index).to_string());
    }
}

#[test]
fn the_document_names_the_protocol_and_the_longest_reason() {
    // However its lines are broken.
    let words = DOCUMENT.split_whitespace().collect::<Vec<_>>().join(" ");
    let alpn = std::str::from_utf8(ALPN).unwrap();
    assert!(words.contains(&format!("ALPN protocol `{alpn}`")));
    assert!(words.contains(&format!("at most {REASON_BYTES_MAX} bytes of UTF-8")));
}
