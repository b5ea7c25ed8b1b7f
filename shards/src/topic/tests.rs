use super::*;
use proptest::prelude::*;

fn table(name: &str, paths: &[&str]) -> TableDef {
    let export = |path: &&str| Export { path: path.to_string(), rest: true, sse: true, ws: true, mqtt: true };
    TableDef {
        exports: paths.iter().map(export).collect(),
        attributes: vec![crate::schema::Attribute {
            name: "id".into(),
            kind: crate::schema::Kind::Id,
            required: false,
            indexed: false,
            role: crate::schema::Role::Plain,
            description: None,
        }],
        primary_key: Some(0),
        ..TableDef::new(name)
    }
}

fn routes(tables: &[TableDef]) -> Routes {
    Routes::new(tables.iter().enumerate().map(|(id, table)| (TableId(id as u16), table)), |_| true)
}

#[test]
fn the_longest_exported_path_wins() {
    let tables = [table("Topics", &["", "Topics"]), table("Sensors", &["Sensors"]), table("Deep", &["Sensors/deep"])];
    let routes = routes(&tables);
    let cases = [
        ("Sensors/101", 1, "101", true),
        ("Sensors", 1, "", false),
        ("Sensors/", 1, "", true),
        ("Sensors/deep/x", 2, "x", true),
        ("Sensors/deeper", 1, "deeper", true),
        ("sensors/101", 0, "sensors/101", true),
        ("/Sensors/101", 0, "/Sensors/101", true),
        ("Topics/a/b", 0, "a/b", true),
        ("a", 0, "a", true),
    ];
    for (topic, id, rest, slash) in cases {
        let found = routes.resolve(topic).unwrap();
        assert_eq!((found.table.0, found.rest, found.slash), (id, rest, slash), "{topic}");
    }
    let none = self::routes(&tables[1..]);
    assert_eq!(none.resolve("Nope/1"), None);
}

#[test]
fn filters_compile_to_the_tables_they_can_reach() {
    let tables =
        [table("Topics", &[""]), table("Sensors", &["Sensors"]), table("Hidden", &[]), table("Own", &["$SYS"])];
    let routes = routes(&tables);
    let cases: [(&str, &[u16]); 18] = [
        ("#", &[0, 1]),
        ("Sensors/#", &[1]),
        ("Sensors/101", &[1]),
        ("Sensors", &[1]),
        ("+/101", &[0, 1]),
        ("a/b", &[0]),
        ("Sensors/", &[]),
        ("+", &[0, 1]),
        ("$SYS/#", &[3]),
        ("$SYS/+/uptime", &[3]),
        ("$SYS/broker/#", &[3]),
        ("$SYS/broker/uptime", &[3]),
        ("$SYS", &[3]),
        ("+/broker/uptime", &[0, 1]),
        ("+/#", &[0, 1]),
        ("$sys/#", &[]),
        ("$SYSTEM", &[]),
        ("$other", &[]),
    ];
    for (filter, expected) in cases {
        let compiled = routes.compile(&parse_filter(filter).unwrap());
        let ids: Vec<u16> = compiled.iter().map(|target| target.table.0).collect();
        assert_eq!(ids, expected, "{filter}");
    }
}

#[test]
fn malformed_names_and_filters_are_refused() {
    let deep = "a/".repeat(TOPIC_LEVELS_MAX);
    let long = "a".repeat(TOPIC_BYTES_MAX + 1);
    for (text, error) in [
        ("", TopicError::Empty),
        ("a\0", TopicError::NulCharacter),
        (&deep, TopicError::TooManyLevels),
        (&long, TopicError::TooLong),
        ("a+", TopicError::Wildcard),
        ("#/a", TopicError::Wildcard),
        ("a#", TopicError::Wildcard),
    ] {
        assert_eq!(parse_filter(text), Err(error));
        assert_eq!(check_name(text), Err(error));
    }
    assert_eq!(check_name("a/+"), Err(TopicError::Wildcard));
    assert!(parse_filter("+/tennis/#").is_ok());
}

/// MQTT 5 §4.7.1, straight from its examples.
#[test]
fn mqtt_4_7_1_examples_match_as_the_specification_says() {
    let cases = [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", true),
        ("sport/#", "sport", true),
        ("#", "a/b/c", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
    ];
    for (filter, name, expected) in cases {
        let filter = KeyFilter::Pattern(parse_filter(filter).unwrap().into());
        assert_eq!(filter.matches(name), expected, "{filter:?} {name}");
    }
}

#[test]
fn a_prefix_collection_leaves_out_the_prefix_itself() {
    let filter = KeyFilter::below("a");
    assert!(filter.matches("a/b") && filter.matches("a/b/c") && filter.matches("a/"));
    assert!(!filter.matches("a") && !filter.matches("ab/c"));
    assert_eq!(filter.prefix(), "a");
}

fn topic() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ab]{0,1}", 1..4).prop_map(|levels| levels.join("/"))
}

fn filter() -> impl Strategy<Value = KeyFilter> {
    let level = prop_oneof![
        3 => "[ab]{0,1}".prop_map(|name| Level::Name(name.into())),
        1 => Just(Level::One),
    ];
    (proptest::collection::vec(level, 0..4), any::<bool>()).prop_map(|(mut levels, rest)| {
        if rest || levels.is_empty() {
            levels.push(Level::Rest);
        }
        KeyFilter::Pattern(levels.into())
    })
}

proptest! {
    /// The tree finds exactly the filters that match one by one, also after some were taken out.
    #[test]
    fn the_tree_agrees_with_matching_one_by_one(filters in proptest::collection::vec(filter(), 0..20),
                                                removed in proptest::collection::vec(any::<bool>(), 20),
                                                topics in proptest::collection::vec(topic(), 1..10)) {
        let mut tree: Tree<Vec<usize>> = Tree::default();
        for (index, filter) in filters.iter().enumerate() {
            tree.entry(filter).push(index);
        }
        for (index, filter) in filters.iter().enumerate().filter(|(index, _)| removed[*index]) {
            tree.edit(filter, |list| {
                list.retain(|own| *own != index);
                list.is_empty()
            });
        }
        for topic in topics {
            let mut found = Vec::new();
            tree.visit(&topic, &mut |list| found.extend(list.iter().copied()));
            found.sort_unstable();
            let expected: Vec<usize> = filters.iter().enumerate()
                .filter(|(index, filter)| !removed[*index] && filter.matches(&topic))
                .map(|(index, _)| index).collect();
            prop_assert_eq!(found, expected, "{}", topic);
        }
        if removed.iter().all(|removed| *removed) {
            prop_assert!(tree.is_empty());
        }
    }
}
