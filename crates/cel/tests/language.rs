//! The language by its facts: expressions and what becomes of them.

use gantry_cel::{Data, Env, ListKind, Map, Program, Type, Value, limits, to_json, typed, untyped};
use serde_json::{Value as Json, json};

fn env() -> Env {
    Env::new().variable("x", Type::Dyn)
}

fn data() -> Json {
    json!({"a": 1, "b": 2.5, "s": "text", "list": [1, 2, 3], "map": {"k": "v"}, "null": null, "t": true})
}

/// The result as text: JSON where there is JSON, else a description; errors begin with `error: `.
fn run(source: &str) -> String {
    let program = match Program::compile(source, &env()) {
        Ok(program) => program,
        Err(issues) => {
            // What fails when constants are put together is no fault of a place.
            let first = issues.found().first();
            return first.map_or_else(|| format!("error: {issues}"), |i| format!("compile: {}", i.message));
        }
    };
    let data = data();
    let done = program.eval(&[("x", untyped(&data))], limits::PER_CALL);
    match done.result {
        Err(error) => format!("error: {error}"),
        Ok(value) => show(&value),
    }
}

fn show(value: &Value<'_>) -> String {
    match value {
        Value::Uint(n) => format!("{n}u"),
        Value::Type(ty) => ty.name().to_owned(),
        Value::Optional(None) => "none".to_owned(),
        Value::Optional(Some(inner)) => format!("some({})", show(inner)),
        Value::Map(Map::Values(entries)) => {
            let entries: Vec<String> = entries
                .iter()
                .map(|(key, value)| format!("{}: {}", show(&key.to_value()), show(value)))
                .collect();
            format!("{{{}}}", entries.join(", "))
        }
        Value::Bytes(bytes) => format!("b{:?}", String::from_utf8_lossy(bytes)),
        other => to_json(other).map_or_else(|_| other.type_name().to_owned(), |json| json.to_string()),
    }
}

#[track_caller]
fn table(cases: &[(&str, &str)]) {
    let wrong: Vec<String> = cases
        .iter()
        .filter_map(|(source, expected)| {
            let found = run(source);
            (found != *expected).then(|| format!("{source}\n  expected {expected}\n  found    {found}"))
        })
        .collect();
    assert!(wrong.is_empty(), "{} cases:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn literals_and_operators() {
    table(&[
        ("1 + 2 * 3", "7"),
        ("(1 + 2) * 3", "9"),
        ("-3 - -2", "-1"),
        ("--2", "2"),
        ("!true || !!true", "true"),
        ("0x10 + 1", "17"),
        ("7 / 2", "3"),
        ("-7 / 2", "-3"),
        ("-7 % 3", "-1"),
        ("7u % 4u", "3u"),
        ("1.5 + .5", "2.0"),
        ("1e3", "1000.0"),
        ("9223372036854775807 + 1", "error: integer overflow"),
        ("-9223372036854775808", "-9223372036854775808"),
        ("9223372036854775808", "compile: invalid int literal"),
        ("0u - 1u", "error: unsigned integer overflow"),
        ("1 / 0", "error: division by zero"),
        ("1 % 0", "error: modulus by zero"),
        ("1.0 / 0.0 > 1.0", "true"),
        ("'a' + 'b'", "\"ab\""),
        ("b'a' + b'b'", "b\"ab\""),
        (r"'\u00e9\x41\101\n'", "\"éAA\\n\""),
        (r"r'\n'", "\"\\\\n\""),
        ("'''a\n'b''' ", "\"a\\n'b\""),
        ("[1, 2] + [3]", "[1,2,3]"),
        ("2 in [1, 2]", "true"),
        ("'k' in {'k': 1}", "true"),
        ("1 == 1.0 || true", "compile: found no matching overload for '_==_' applied to '(int, double)'"),
        ("dyn(1) == 1.0", "true"),
        ("dyn(1) == 1u", "true"),
        ("dyn('a') == 1", "false"),
        ("1 < 1.5 && 2u > 1 && 3.0 >= 3", "true"),
        ("'a' < 'b' && b'a' < b'b' && false < true", "true"),
        ("dyn('a') < 1", "error: no such overload"),
        ("true ? 1 : 2", "1"),
        ("null == null", "true"),
        ("// nothing\n 1", "1"),
        ("[1, 2, 3][1]", "2"),
        ("[1][1]", "error: index out of bounds: 1"),
        ("{'a': 1}['b']", "error: no such key: b"),
        ("{1: 'a'}[1]", "\"a\""),
        ("{1: 'a', 2u: 'b'}", "compile: expected type 'int' but found 'uint'"),
    ]);
}

#[test]
fn logic_absorbs_errors_of_the_other_side() {
    table(&[
        ("false && 1 / 0 > 0", "false"),
        ("1 / 0 > 0 && false", "false"),
        ("1 / 0 > 0 || true", "true"),
        ("1 / 0 > 0 && true", "error: division by zero"),
        ("[0, 1].exists(i, 1 / i > 0)", "true"),
        ("[0, 1].all(i, 1 / i > 5)", "false"),
        ("[0, 1].all(i, 1 / i > 0)", "error: division by zero"),
        ("[1, 2].exists_one(i, i > 1)", "true"),
        ("x.missing.y == 1 || x.a == 1", "true"),
    ]);
}

#[test]
fn macros() {
    table(&[
        ("has(x.a)", "true"),
        ("has(x.b.c)", "false"),
        ("has(x.zz)", "false"),
        ("has(x.zz.y)", "error: no such key: zz"),
        ("has(x.null)", "compile: Syntax error: mismatched input 'null' expecting IDENTIFIER"),
        ("has(1)", "compile: invalid argument to has() macro"),
        ("[1, 2, 3].map(i, i * 2)", "[2,4,6]"),
        ("[1, 2, 3].map(i, i > 1, i * 2)", "[4,6]"),
        ("[1, 2, 3].filter(i, i > 1)", "[2,3]"),
        ("{'a': 1, 'b': 2}.map(k, k)", "[\"a\",\"b\"]"),
        ("{'a': 1}.all(k, v, k == 'a' && v == 1)", "true"),
        ("[5, 6].exists(i, v, i == 1 && v == 6)", "true"),
        ("[5, 6].existsOne(i, v, v > 5)", "true"),
        ("[5, 6].transformList(i, v, i + v)", "[5,7]"),
        ("[5, 6].transformList(i, v, v > 5, i + v)", "[7]"),
        ("[5, 6].transformMap(i, v, v)", "{0: 5, 1: 6}"),
        ("{'a': 1}.transformMap(k, v, v + 1)", "{\"a\": 2}"),
        ("['a'].transformMapEntry(i, v, {v: i})", "{\"a\": 0}"),
        ("['a', 'a'].transformMapEntry(i, v, {v: i})", "error: insert failed: key a already exists"),
        ("[1].map(i, [i].map(i, i + 1))", "[[2]]"),
        ("[1].all(1, true)", "compile: argument must be a simple name"),
        ("[1].all(i, i, true)", "compile: duplicate variable name: i"),
        (
            "1.all(i, true)",
            "compile: expression of type 'int' cannot be range of a comprehension (must be list, map, or dynamic)",
        ),
    ]);
}

#[test]
fn optionals() {
    table(&[
        ("x.?a", "some(1)"),
        ("x.?zz", "none"),
        ("x.?zz.y.z", "none"),
        ("x.?map.k.orValue('d')", "\"v\""),
        ("x.?zz.k.orValue('d')", "\"d\""),
        ("x.list[?1]", "some(2)"),
        ("x.list[?9].hasValue()", "false"),
        ("optional.of(1).or(optional.of(2)).value()", "1"),
        ("optional.none().orValue(3)", "3"),
        ("optional.none().value()", "error: optional.none() dereference"),
        ("optional.ofNonZeroValue('')", "none"),
        ("x.?a.optMap(v, v + 1)", "some(2)"),
        ("x.?zz.optMap(v, v + 1)", "none"),
        ("x.?map.optFlatMap(m, m.?k)", "some(\"v\")"),
        ("[dyn(1), ?x.?a, ?x.?zz]", "[1,1]"),
        ("{'a': 1, ?'b': optional.none()}", "{\"a\": 1}"),
        ("[optional.of(1), optional.none()].unwrapOpt()", "[1]"),
        ("[1, 2].first().value() + [1, 2].last().value()", "3"),
        ("has(x.?map.k)", "true"),
    ]);
}

#[test]
fn conversions() {
    table(&[
        ("int('12') + int(3.9) + int(2u)", "17"),
        ("int('x')", "error: type conversion error from 'string' to 'int'"),
        ("int(1e30)", "error: integer overflow"),
        ("uint(-1)", "error: unsigned integer overflow"),
        ("double('1.5')", "1.5"),
        ("string(1.0)", "\"1\""),
        ("string(1e21)", "\"1e+21\""),
        ("string(1.5e-7)", "\"1.5e-07\""),
        ("string(true)", "\"true\""),
        ("bool('t')", "true"),
        ("bytes('é')", "b\"é\""),
        ("string(b'\\xff')", "error: invalid UTF-8 in bytes, cannot convert to string"),
        ("type(1)", "int"),
        ("type(x.list) == list", "true"),
        ("type(x.s) == string && type(x) == map", "true"),
        ("type(type(1)) == type", "true"),
        ("string(duration('1h30m'))", "\"5400s\""),
        ("string(duration('1.5s'))", "\"1.5s\""),
        ("string(timestamp('2024-02-29T12:00:00.5Z'))", "\"2024-02-29T12:00:00.5Z\""),
        ("int(timestamp('1970-01-01T00:01:00Z'))", "60"),
        ("size('héllo') + size(b'ab') + [1].size() + {'a': 1}.size()", "9"),
    ]);
}

#[test]
fn times() {
    table(&[
        ("timestamp('2024-02-29T12:30:15Z').getFullYear()", "2024"),
        ("timestamp('2024-02-29T12:30:15Z').getMonth()", "1"),
        ("timestamp('2024-02-29T12:30:15Z').getDate()", "29"),
        ("timestamp('2024-02-29T12:30:15Z').getDayOfWeek()", "4"),
        ("timestamp('2024-02-29T12:30:15Z').getDayOfYear()", "59"),
        ("timestamp('2024-02-29T12:30:15Z').getHours('+02:30')", "15"),
        ("timestamp('2024-02-29T12:30:15Z').getHours('-08:00')", "4"),
        ("timestamp('2024-01-01T00:00:00Z') - timestamp('2023-12-31T00:00:00Z') == duration('24h')", "true"),
        ("timestamp('2024-01-01T00:00:00Z') + duration('1h') > timestamp('2024-01-01T00:00:00Z')", "true"),
        ("timestamp('9999-12-31T23:59:59Z') + duration('1s')", "error: timestamp overflow"),
        ("duration('3723.4s').getMinutes()", "62"),
        ("duration('1x')", "compile: invalid duration argument"),
        ("timestamp('yesterday')", "compile: invalid timestamp argument"),
    ]);
}

#[test]
fn strings() {
    table(&[
        ("'tacocat'.charAt(3)", "\"o\""),
        ("'abc'.charAt(3)", "\"\""),
        ("'abc'.charAt(4)", "error: index out of range: 4"),
        ("'hello mellow'.indexOf('ello', 2)", "7"),
        ("'hello mellow'.lastIndexOf('ello')", "7"),
        ("'hello mellow'.lastIndexOf('ello', 6)", "1"),
        ("'hello hello'.replace('he', 'we', 1)", "\"wello hello\""),
        ("'ab'.replace('', '_')", "\"_a_b_\""),
        ("'a,b,c'.split(',')", "[\"a\",\"b\",\"c\"]"),
        ("'a,b,c'.split(',', 2)", "[\"a\",\"b,c\"]"),
        ("'abc'.split('')", "[\"a\",\"b\",\"c\"]"),
        ("'abc'.split(',', 0)", "[]"),
        ("'tacocat'.substring(0, 4)", "\"taco\""),
        ("'tacocat'.substring(4)", "\"cat\""),
        ("'abc'.substring(2, 1)", "error: invalid substring range. start: 2, end: 1"),
        ("' a '.trim() + 'B'.lowerAscii() + 'c'.upperAscii()", "\"abC\""),
        ("['a', 'b'].join('-')", "\"a-b\""),
        ("strings.quote('a\"b')", "\"\\\"a\\\\\\\"b\\\"\""),
        ("'abc'.contains('b') && 'abc'.startsWith('a') && 'abc'.endsWith('c')", "true"),
        ("'abc123'.matches('^[a-z]+\\\\d+$')", "true"),
        ("'x'.matches('(')", "compile: invalid matches argument"),
        ("'abc 123'.find('[0-9]+')", "\"123\""),
        ("'1 2 3'.findAll('[0-9]', 2)", "[\"1\",\"2\"]"),
        ("'%s is %d, %.2f, %x'.format([dyn('a'), 3, 1.5, 255])", "\"a is 3, 1.50, ff\""),
        ("'%s %s'.format([dyn([dyn(1), 'b']), {'k': 1.5}])", "\"[1, \\\"b\\\"] {\\\"k\\\":1.500000}\""),
        (
            "'%d'.format(['a'])",
            "compile: error during formatting: decimal clause can only be used on integers, was given string",
        ),
        ("'%s'.format([])", "compile: index 0 out of range"),
    ]);
}

#[test]
fn lists() {
    table(&[
        ("[1, 2, 3].sum() + [3, 1].max() + [3, 1].min()", "10"),
        ("[].sum()", "0"),
        ("[1, 3, 2].isSorted()", "false"),
        ("[1, 2, 1].indexOf(1) + [1, 2, 1].lastIndexOf(1)", "2"),
        ("[1, 2, 3, 4].slice(1, 3)", "[2,3]"),
        ("[1].slice(0, 2)", "error: cannot slice(0, 2), list is length 1"),
        ("[[1], [2, 3]].flatten()", "[1,2,3]"),
        ("[3, 1, 2].sort()", "[1,2,3]"),
        ("[{'n': 2}, {'n': 1}].sortBy(e, e.n).map(e, e.n)", "[1,2]"),
        ("lists.range(3)", "[0,1,2]"),
        ("[1, 2].reverse() + [1, 1, 2].distinct()", "[2,1,1,2]"),
        ("sets.contains([1, 2], [2]) && sets.equivalent([1, 1], [1]) && !sets.intersects([1], [2])", "true"),
        ("lists.range(100000000000)", "error: operation cancelled: actual cost limit exceeded"),
    ]);
}

#[test]
fn kubernetes_libraries() {
    table(&[
        ("quantity('1Gi').isGreaterThan(quantity('1G'))", "true"),
        ("quantity('50k').asInteger()", "50000"),
        ("quantity('1500m').isInteger()", "false"),
        ("quantity('1').add(quantity('500m')).compareTo(quantity('1.5'))", "0"),
        ("quantity('1').sub(2).asApproximateFloat()", "-1.0"),
        ("sign(quantity('-1'))", "-1"),
        ("isQuantity('1.3.4')", "false"),
        ("ip('127.0.0.1').isLoopback() && ip('::1').family() == 6", "true"),
        ("isIP('256.1.1.1')", "false"),
        ("isIP('::ffff:1.2.3.4')", "false"),
        ("ip.isCanonical('2001:DB8::1')", "false"),
        ("string(ip('2001:DB8::1'))", "\"2001:db8::1\""),
        ("ip('10.0.0.1').isGlobalUnicast() && !ip('224.0.0.1').isGlobalUnicast()", "true"),
        ("cidr('192.168.0.0/16').containsIP('192.168.1.1')", "true"),
        ("cidr('192.168.0.0/16').containsCIDR(cidr('192.168.4.0/24'))", "true"),
        ("cidr('192.168.0.1/24').masked() == cidr('192.168.0.0/24')", "true"),
        ("cidr('192.168.0.1/24').ip() == ip('192.168.0.1')", "true"),
        ("cidr('10.0.0.0/8').prefixLength()", "8"),
        ("isCIDR('10.0.0.0/33')", "false"),
        ("url('https://example.com:80/a%20b?q=1&q=2#f').getHost()", "\"example.com:80\""),
        ("url('https://[::1]:80/').getHostname()", "\"::1\""),
        ("url('https://example.com:80/').getPort()", "\"80\""),
        ("url('https://example.com/a b/').getEscapedPath()", "\"/a%20b/\""),
        ("url('https://example.com/?q=1&q=2').getQuery()", "{\"q\": [\"1\",\"2\"]}"),
        ("isURL('../relative')", "false"),
        ("isURL('https://a:b:c/')", "false"),
        (
            "url('../x')",
            "error: URL parse error during conversion from string: parse \"../x\": invalid URI for request",
        ),
        (
            "semver('1.2.3').isLessThan(semver('1.10.0')) && semver('1.0.0-a.1').isLessThan(semver('1.0.0'))",
            "true",
        ),
        ("isSemver('v1.0') || !isSemver('v1.0', true)", "false"),
        ("semver('1.2.3').minor()", "2"),
        ("format.dns1123Label().validate('Not a label').hasValue()", "true"),
        ("format.named('uuid').value().validate('123e4567-e89b-12d3-a456-426614174000')", "none"),
        ("format.named('nothing')", "none"),
        ("jsonpatch.escapeKey('a')", "compile: undeclared reference to 'jsonpatch' (in container '')"),
    ]);
}

#[test]
fn what_does_not_compile_is_shown_with_its_place() {
    let object = Type::object("self", [("x", Type::Int), ("list", Type::list(Type::String))]);
    let env = Env::new().variable("self", object);
    let cases = [
        ("self.z == 1", "ERROR: <input>:1:5: undefined field 'z'\n | self.z == 1\n | ....^"),
        (
            "self.x == 'a'",
            "ERROR: <input>:1:8: found no matching overload for '_==_' applied to '(int, string)'\n | self.x == 'a'\n | .......^",
        ),
        (
            "nothing",
            "ERROR: <input>:1:1: undeclared reference to 'nothing' (in container '')\n | nothing\n | ^",
        ),
        (
            "self.x.y",
            "ERROR: <input>:1:7: type 'int' does not support field selection\n | self.x.y\n | ......^",
        ),
        (
            "self = 42",
            "ERROR: <input>:1:6: Syntax error: token recognition error at: '= '\n | self = 42\n | .....^\nERROR: <input>:1:8: Syntax error: extraneous input '42' expecting <EOF>\n | self = 42\n | .......^",
        ),
        (
            "self.x >",
            "ERROR: <input>:1:9: Syntax error: mismatched input '<EOF>' expecting {'[', '{', '(', '.', '-', '!', 'true', 'false', 'null', NUM_FLOAT, NUM_INT, NUM_UINT, STRING, BYTES, IDENTIFIER}\n | self.x >\n | ........^",
        ),
        (
            "self.list.contains('a')",
            "ERROR: <input>:1:19: found no matching overload for 'contains' applied to 'list(string).(string)'\n | self.list.contains('a')\n | ..................^",
        ),
        ("true &&\n\tself.q", "ERROR: <input>:2:6: undefined field 'q'\n |  self.q\n | .....^"),
        ("self.namespace", "ERROR: <input>:1:5: undefined field 'namespace'\n | self.namespace\n | ....^"),
        ("for", "ERROR: <input>:1:1: reserved identifier: for\n | for\n | ^"),
    ];
    for (source, expected) in cases {
        let issues = Program::compile(source, &env).expect_err(source);
        assert_eq!(issues.to_string(), expected, "{source}");
    }
}

#[test]
fn typed_data() {
    let fields = [
        ("a.b".to_owned(), Data::int()),
        ("in".to_owned(), Data::string(None, None)),
        ("d".to_owned(), Data::double()),
        ("when".to_owned(), Data::date_time()),
        ("span".to_owned(), Data::duration()),
        ("set".to_owned(), Data::list(Data::string(None, None).into(), None, ListKind::Set)),
        ("either".to_owned(), Data::int_or_string(None)),
        ("raw".to_owned(), Data::preserved()),
    ];
    let fields = fields.into_iter().map(|(name, data)| (name, data.into())).collect();
    let data = Data::object("self", fields, &[]);
    let env = Env::new().variable("self", data.ty.clone().expect("objects have a type"));
    let json = json!({"a.b": 1, "in": "x", "d": 2, "when": "2024-01-01T00:00:00Z", "span": "1h", "set": ["b", "a"],
                      "either": "5", "raw": {"z": 1}});
    let cases = [
        ("self.a__dot__b == 1 && self.__in__ == 'x'", "true"),
        ("self.d / 4.0 == 0.5", "true"),
        ("self.when.getFullYear() == 2024 && self.span == duration('60m')", "true"),
        ("self.set == ['a', 'b']", "true"),
        ("self.set + ['a', 'c'] == ['b', 'a', 'c']", "true"),
        ("type(self.either) == string", "true"),
        ("has(self.d) && self == self", "true"),
    ];
    for (source, expected) in cases {
        let program = Program::compile(source, &env).unwrap_or_else(|e| panic!("{source}: {e}"));
        let value = typed(&json, &data).expect("the JSON fits");
        let done = program.eval(&[("self", value)], limits::PER_CALL);
        assert_eq!(done.result.map(|v| show(&v)).unwrap_or_else(|e| e.to_string()), expected, "{source}");
    }
    let hidden = Program::compile("self.raw", &env).expect_err("data without a schema has no type");
    assert!(hidden.to_string().contains("undefined field 'raw'"));
}

#[test]
fn cost_is_counted_and_limited() {
    let costs =
        [("true", 0), ("x", 1), ("x.a", 2), ("x.a == 1", 3), ("x.list.map(i, i)", 42), ("has(x.a)", 1)];
    for (source, expected) in costs {
        let program = Program::compile(source, &env()).expect("it compiles");
        let json = data();
        assert_eq!(program.eval(&[("x", untyped(&json))], limits::PER_CALL).cost, expected, "{source}");
    }
    let slow = "lists.range(1000).all(a, lists.range(1000).all(b, a + b >= 0))";
    assert_eq!(run(slow), "error: operation cancelled: actual cost limit exceeded");
    let slow = format!("{slow} || true");
    assert_eq!(run(&slow), "error: operation cancelled: actual cost limit exceeded");
}

#[test]
fn nesting_and_size_are_bounded() {
    let deep = format!("{}1{}", "(".repeat(300), ")".repeat(300));
    assert!(run(&deep).starts_with("compile: expression recursion limit exceeded"));
    let chain = format!("x{}", ".a".repeat(1000));
    assert_eq!(run(&chain), "compile: max recursion depth exceeded");
    let terms = vec!["true"; 2000].join(" && ");
    assert_eq!(run(&terms), "true");
    let doubled = (0..40).fold("x.?a".to_owned(), |source, _| format!("{source}.optMap(v, v)"));
    assert!(run(&doubled).starts_with("compile: "));
    let lists = (0..40).fold("[1]".to_owned(), |source, _| format!("[{source}].map(v, v + v)[0]"));
    assert_eq!(run(&lists), "error: operation cancelled: actual cost limit exceeded");
    let long = "1+".repeat(60_000);
    assert!(run(&long).contains("expression code point size exceeds limit"));
}
