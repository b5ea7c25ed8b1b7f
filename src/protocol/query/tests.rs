use super::*;

fn table() -> TableDef {
    let sdl = "type T @table { id: ID @primaryKey n: Int f: Float s: String b: Boolean d: Date tags: [String] \
               any: Any place: Place } type Place { city: String zip: Int }";
    let mut diagnostics = crate::diagnostic::Diagnostics::default();
    let document = crate::app::sdl::parse("schema.graphql", sdl, &mut diagnostics);
    crate::app::sdl::define(&[document], &mut diagnostics).remove(0)
}

fn problem(text: &str) -> String {
    parse(text, &table(), &[]).expect_err(text).to_string()
}

#[test]
fn both_ways_of_writing_mean_the_same() {
    let pairs = [
        ("n=3", "n===3"),
        ("n=3&s=a%20b", "(n==3&s==a%20b)"),
        ("n=gt=3&lt=9", "n=gt=3&=lt=9"),
        ("n>3", "n=gt=3"),
        ("n>=3", "n=ge=3"),
        ("n!=3", "n=ne=3"),
        ("s==ab*", "s=sw=ab"),
        ("s[]=a", "s=a"),
        ("any==3", "any==number:3"),
        ("any==number:$z", "any==35"),
        ("d=gt=2024-01-01T00%3A00%3A00Z", "d=gt=1704067200000"),
        ("n=1|n=2", "[n=2|n=1]"),
    ];
    for (one, other) in pairs {
        assert_eq!(parse(one, &table(), &[]), parse(other, &table(), &[]), "{one} {other}");
        assert!(parse(one, &table(), &[]).is_ok(), "{one}: {:?}", parse(one, &table(), &[]));
    }
    assert_ne!(parse("any=3", &table(), &[]), parse("any==3", &table(), &[]));
    assert_eq!(parse("s=a+b", &table(), &[]), parse("s=a%20b", &table(), &[]));
}

#[test]
fn mistakes_are_named_with_their_place() {
    for (text, wanted) in [
        ("n=gt=x", "query, position 5: `x`: n is a number"),
        ("n=1&s=2|b=true", "query, position 7: `&` and `|` beside each other: expected parentheses around one of them"),
        ("(n=1", "query, position 4: expected `)`"),
        ("n=zz=1", "query, position 1: `=zz=` is no operator; expected one of eq, ne, lt, le, gt, ge, ct, sw, ew"),
        ("s==a*b", "query, position 3: `a*b`: `*` stands only at the end"),
        ("n", "query, position 1: expected an operator after `n`"),
        ("limit(x)", "query, position 6: limit(x): expected one number, or a start and an end behind it"),
        ("group-by(n)", "query, position 0: `group-by` is no function; expected select, limit or sort"),
        ("n=gt=1&gt=2", "query, position 7: one lower and one upper bound can be chained"),
        ("n=ct=1", "query, position 1: n is no text: this operator compares texts"),
        ("b==7", "query, position 3: `7`: b is true or false"),
        ("n=%zz", "query, position 2: `%zz` is not valid percent-encoded UTF-8"),
        ("n=1)", "query, position 3: expected the end of the query, found `)`"),
        ("", ""),
    ] {
        match wanted {
            "" => assert_eq!(parse(text, &table(), &[]), Ok((Query::default(), Parameters::default()))),
            wanted => assert_eq!(problem(text), wanted),
        }
    }
    let deep = "(".repeat(100);
    assert!(problem(&deep).contains("nested deeper"));
    assert!(problem(&"n=1&".repeat(200)).contains("comparisons"));
}

#[test]
fn what_is_selected() {
    use shards::query::project::Select;
    let select = |text: &str| parse(text, &table(), &[]).expect(text).0.select;
    assert!(matches!(select("select(n)"), Select::Value(_)));
    assert!(matches!(select("select(n,)"), Select::Object(fields) if fields.len() == 1));
    assert!(matches!(select("select(n,s)"), Select::Object(fields) if fields.len() == 2));
    assert!(matches!(select("select([n,s])"), Select::Array(fields) if fields.len() == 2));
    let Select::Object(fields) = select("select(n,place{city,zip},$id)") else { panic!() };
    assert!(matches!(&*fields[1].select, Select::Object(own) if own.len() == 2));
    let (query, _) = parse("n=1&limit(5,15)&sort(-n,+s,b)", &table(), &[]).unwrap();
    assert_eq!((query.offset, query.limit, query.sort.len()), (5, Some(10), 3));
    assert!(query.sort[0].descending && !query.sort[1].descending);
    let (_, parameters) = parse("n=1&startTime=5&explain", &table(), &[]).unwrap();
    assert!(parameters.explain && parameters.start_time.as_deref() == Some("5"));
    assert_eq!(problem("n=1&previousCount=x"), "query, position 18: expected a number from 1 to 1000");
}
