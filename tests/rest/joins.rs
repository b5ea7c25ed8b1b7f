//! Queries that reach through `@relationship`: what they find and select is what one finds by looking at all records.

use crate::common::{get, http, put_json};
use crate::start;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;

type Table = BTreeMap<String, Value>;

struct Shop {
    brands: Table,
    countries: Table,
    products: Table,
}

/// The same for each number of shards: numbers that only look random.
fn shop(at: SocketAddr) -> Shop {
    let mut state = 7u64;
    let mut next = move |below: u64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    };
    let mut tables: [Table; 3] = Default::default();
    for n in 0..5 {
        tables[0].insert(n.to_string(), json!({ "id": n, "name": format!("land {n}") }));
    }
    for n in 0..25 {
        let mut brand = json!({ "id": format!("b{n}"), "name": format!("brand {}", next(12)) });
        if next(5) > 0 {
            brand["country"] = next(6).into(); // one of them is nowhere
        }
        tables[1].insert(format!("b{n}"), brand);
    }
    for n in 0..300 {
        let mut product =
            json!({ "id": format!("p{n:03}"), "name": format!("thing {}", next(40)), "price": next(100) });
        match next(10) {
            0 => {}
            1 => product["brandId"] = Value::Null,
            2 => product["brandId"] = "nobody".into(),
            _ => product["brandId"] = format!("b{}", next(25)).into(),
        }
        if next(3) == 0 {
            let parts: Vec<String> = (0..next(4)).map(|_| format!("p{:03}", next(320))).collect();
            product["partIds"] = parts.into();
        }
        tables[2].insert(format!("p{n:03}"), product);
    }
    for (name, table) in ["Country", "Brand", "Product"].iter().zip(&tables) {
        let all = Value::Array(table.values().cloned().collect()).to_string();
        let headers = [("Content-Type", "application/json")];
        assert_eq!(http(at, "PUT", &format!("/{name}/"), &headers, all.as_bytes()).status, 204);
    }
    let [countries, brands, products] = tables;
    Shop { brands, countries, products }
}

impl Shop {
    fn brand(&self, product: &Value) -> Option<&Value> {
        self.brands.get(product["brandId"].as_str()?)
    }

    fn country(&self, brand: &Value) -> Option<&Value> {
        self.countries.get(&brand["country"].as_u64()?.to_string())
    }

    fn parts(&self, product: &Value) -> Vec<&Value> {
        let mut found: Vec<&Value> = Vec::new();
        for id in product["partIds"].as_array().into_iter().flatten() {
            let part = self.products.get(id.as_str().unwrap_or_default());
            found.extend(part.filter(|part| !found.contains(part)));
        }
        found
    }

    fn products_of(&self, brand: &Value) -> Vec<&Value> {
        self.products.values().filter(|product| product["brandId"] == brand["id"]).collect()
    }
}

fn ids<'a>(records: impl Iterator<Item = &'a Value>) -> Vec<Value> {
    let mut ids: Vec<Value> = records.map(|record| record["id"].clone()).collect();
    ids.sort_by_key(Value::to_string);
    ids
}

fn found(at: SocketAddr, path: &str) -> Vec<Value> {
    let response = get(at, path);
    assert_eq!(response.status, 200, "{path}: {}", response.text());
    ids(response.json().as_array().expect("an array").iter())
}

#[test]
fn conditions_on_related_records() {
    for shards in [1, 2, 4] {
        let (_app, server) = start(shards);
        let at = server.http();
        let shop = shop(at);
        type Wanted<'a> = Box<dyn Fn(&Value) -> bool + 'a>;
        let shop = &shop;
        let brand_is = |name: &'static str| -> Wanted<'_> {
            Box::new(move |product| shop.brand(product).is_some_and(|brand| brand["name"] == name))
        };
        let products: Vec<(&str, Wanted<'_>)> = vec![
            ("brand.name=brand%203", brand_is("brand 3")),
            (
                "brand.name=brand%203&price=lt=50",
                Box::new(|it| brand_is("brand 3")(it) && it["price"].as_u64() < Some(50)),
            ),
            (
                "brand.name=brand%203|brand.name==brand%204",
                Box::new(|it| brand_is("brand 3")(it) || brand_is("brand 4")(it)),
            ),
            (
                "[brand.name=brand%203|price=gt=95]&price=ne=97",
                Box::new(|it| (brand_is("brand 3")(it) || it["price"].as_u64() > Some(95)) && it["price"] != 97),
            ),
            (
                "brand.land.name=land%202",
                Box::new(|it| shop.brand(it).and_then(|it| shop.country(it)).is_some_and(|it| it["name"] == "land 2")),
            ),
            ("brand.country=gt=3", Box::new(|it| shop.brand(it).is_some_and(|it| it["country"].as_u64() > Some(3)))),
            ("parts.price=ge=90", Box::new(|it| shop.parts(it).iter().any(|it| it["price"].as_u64() >= Some(90)))),
            ("parts.brand.name=brand%201", Box::new(|it| shop.parts(it).into_iter().any(|it| brand_is("brand 1")(it)))),
            (
                "partOf.price=lt=20",
                Box::new(|it| {
                    shop.products
                        .values()
                        .any(|whole| whole["price"].as_u64() < Some(20) && shop.parts(whole).contains(&it))
                }),
            ),
            ("brand.name=none", Box::new(|_| false)),
        ];
        for (query, wanted) in &products {
            let expected = ids(shop.products.values().filter(|product| wanted(product)));
            assert_eq!(found(at, &format!("/Product/?{query}")), expected, "{query}, {shards} shards");
        }
        let expected = ids(shop.brands.values().filter(|it| shop.products_of(it).iter().any(|it| it["price"] == 7)));
        assert_eq!(found(at, "/Brand/?products.price=7"), expected);
        let expected = ids(shop.countries.values().filter(|country| {
            let brands = shop.brands.values().filter(|it| it["country"] == country["id"]);
            brands.into_iter().any(|it| shop.products_of(it).iter().any(|it| it["price"].as_u64() > Some(97)))
        }));
        assert_eq!(found(at, "/Country/?brands.products.price=gt=97"), expected);
        // The same as an object.
        let body = json!({ "conditions": [{ "attribute": ["brand", "land", "name"], "value": "land 2" }] }).to_string();
        let answer = http(at, "QUERY", "/Product/", &[("Content-Type", "application/json")], body.as_bytes());
        assert_eq!(
            ids(answer.json().as_array().expect("an array").iter()),
            found(at, "/Product/?brand.land.name=land%202")
        );
    }
}

#[test]
fn related_records_are_selected() {
    for shards in [1, 2, 4] {
        let (_app, server) = start(shards);
        let at = server.http();
        let shop = shop(at);
        let answer = get(at, "/Product/?select(id,brand)").json();
        let rows = answer.as_array().expect("an array");
        assert_eq!(rows.len(), 300);
        for row in rows {
            let product = &shop.products[row["id"].as_str().expect("an id")];
            let brand = shop.brand(product).cloned().unwrap_or(Value::Null);
            assert_eq!(row["brand"], brand, "{row}");
        }
        // Nested ones, in both directions, of a part of the records, sorted.
        let query = "price=ge=50&sort(-price,id)&select(id,price,brand{name,land{name}},parts{id,brand{id}})&limit(20)";
        let answer = get(at, &format!("/Product/?{query}")).json();
        let mut expected: Vec<&Value> = shop.products.values().filter(|it| it["price"].as_u64() >= Some(50)).collect();
        expected.sort_by_key(|it| (std::cmp::Reverse(it["price"].as_u64()), it["id"].to_string()));
        let project = |product: &&Value| {
            let brand = shop.brand(product).map_or(Value::Null, |brand| {
                let land = shop.country(brand).map_or(Value::Null, |land| json!({ "name": land["name"] }));
                json!({ "name": brand["name"], "land": land })
            });
            let part = |part: &&Value| {
                let brand = shop.brand(part).map_or(Value::Null, |brand| json!({ "id": brand["id"] }));
                json!({ "id": part["id"], "brand": brand })
            };
            let parts: Vec<Value> = shop.parts(product).iter().map(part).collect();
            json!({ "id": product["id"], "price": product["price"], "brand": brand, "parts": parts })
        };
        let expected: Vec<Value> = expected.iter().take(20).map(project).collect();
        assert_eq!(answer, Value::Array(expected), "{shards} shards");
        // Of one record.
        let brand = get(at, "/Brand/b3?select(name,products{id})").json();
        let products: Vec<Value> =
            shop.products_of(&shop.brands["b3"]).iter().map(|it| json!({ "id": it["id"] })).collect();
        assert_eq!(brand, json!({ "name": shop.brands["b3"]["name"], "products": products }));
        assert_eq!(get(at, "/Brand/none?select(name,products{id})").status, 404);
        let all: Map<String, Value> = get(at, "/Brand/b3").json().as_object().expect("an object").clone();
        assert!(!all.contains_key("products"), "not unless it is selected");
    }
}

#[test]
fn changes_by_related_records() {
    let (_app, server) = start(2);
    let at = server.http();
    let shop = shop(at);
    let of_brand =
        |name: &str| ids(shop.products.values().filter(|it| shop.brand(it).is_some_and(|it| it["name"] == name)));
    let (third, fourth) = (of_brand("brand 3"), of_brand("brand 4"));
    let headers = [("Content-Type", "application/json")];
    assert_eq!(http(at, "PATCH", "/Product/?brand.name=brand%203", &headers, br#"{"name":"new"}"#).status, 204);
    assert_eq!(found(at, "/Product/?name=new"), third);
    assert_eq!(http(at, "DELETE", "/Product/?brand.name=brand%204", &[], b"").status, 200);
    assert_eq!(found(at, "/Product/").len(), 300 - fourth.len());
    let deep = format!("/Product/?{}name=x", "parts.".repeat(9));
    for (path, expected) in [(deep.as_str(), "more than 8 tables"), ("/Product/?select(brand,brand)", "twice")] {
        let response = get(at, path);
        assert!(response.status == 400 && response.text().contains(expected), "{path}: {}", response.text());
    }
    for (path, expected) in
        [("/Product/?brand=b1", "expected one of their attributes"), ("/Product/?sort(brand.name)", "not stored")]
    {
        let response = get(at, path);
        assert!(response.status == 400 && response.text().contains(expected), "{path}: {}", response.text());
    }
    let stream = http(at, "GET", "/Product/?brand.name=x", &[("Accept", "text/event-stream")], b"");
    assert!(stream.status == 400 && stream.text().contains("other tables"), "{}", stream.text());
    // A key of another type: a number in one table, its digits in the other.
    assert_eq!(put_json(at, "/Brand/text", &json!({ "name": "of text", "country": 2 })).status, 204);
    assert_eq!(get(at, "/Brand/text?select(land)").json()["name"], "land 2");
    // What is asked of another table has a bound.
    let many: Vec<Value> = (0..10_100).map(|n| json!({ "id": format!("m{n}"), "name": "many" })).collect();
    assert_eq!(http(at, "PUT", "/Brand/", &headers, Value::Array(many).to_string().as_bytes()).status, 204);
    let refused = get(at, "/Product/?brand.name=many");
    assert!(refused.status == 400 && refused.text().contains("Brand"), "{}", refused.text());
}
