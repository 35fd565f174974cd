//! Conversion webhooks that answer with the wrong thing: the object's label says with what.

use std::sync::Arc;

use bytes::Bytes;
use gantry_apiserver::testing::hook::{self, Handle, Hook};
use http::{Request, Response};
use serde_json::{Value, json};

use crate::conversion::{CRDS, V1, V2, definition, established, host};
use crate::{Lab, refused};

/// The answer to a review, as the first object's label `do` wants it.
fn answer(request: &Request<Bytes>) -> Option<Response<Bytes>> {
    let mut review: Value = serde_json::from_slice(request.body()).ok()?;
    let asked = review["request"].take();
    let wish = asked["objects"][0]["metadata"]["labels"]["do"].as_str().unwrap_or("").to_owned();
    let mut objects = asked["objects"].as_array()?.clone();
    for object in &mut objects {
        object["apiVersion"] = asked["desiredAPIVersion"].clone();
    }
    let mut response = json!({"uid": asked["uid"], "result": {"status": "Success"}});
    match wish.as_str() {
        "garbage" => return Some(Response::new(Bytes::from_static(b"garbage"))),
        "broken" => return Response::builder().status(500).body(Bytes::from_static(b"on fire")).ok(),
        "moved" => return Response::builder().status(307).header("location", "/x").body(Bytes::new()).ok(),
        "cut" => return None,
        "silent" => return Some(hook::json(&review)).filter(|_| review["request"].is_null()),
        "other-uid" => response["uid"] = json!("other"),
        "undecided" => response["result"] = json!({}),
        "fails" => response["result"] = json!({"status": "Failure", "message": "will not"}),
        "fewer" => objects.clear(),
        "more" => objects.push(objects[0].clone()),
        "renamed" => objects[0]["metadata"]["name"] = json!("worse"),
        "moved-away" => objects[0]["metadata"]["namespace"] = json!("elsewhere"),
        "other-object" => objects[0]["metadata"]["uid"] = json!("other"),
        "other-version" => objects[0]["apiVersion"] = json!("example.com/v3"),
        "other-kind" => objects[0]["kind"] = json!("Guest"),
        "bare" => drop(objects[0].as_object_mut()?.remove("metadata")),
        "listed" => objects[0]["metadata"]["labels"] = json!(["a"]),
        "numbered" => objects[0]["metadata"]["labels"] = json!({"a": 1}),
        "mislabelled" => objects[0]["metadata"]["labels"] = json!({"a": "not a value!"}),
        _ => {}
    }
    response["convertedObjects"] = json!(objects);
    review["response"] = response;
    Some(hook::json(&review))
}

#[tokio::test]
async fn what_a_conversion_webhook_gets_wrong_is_told() {
    let lab = Lab::new().await;
    let handle: Handle = Arc::new(|request| Box::pin(async move { answer(&request) }));
    let hook = Hook::start(&["localhost"], handle, &lab.tasks).await;
    lab.create(CRDS, &definition(&hook)).await;
    established(&lab).await;
    let url = format!("https://localhost:{}/convert?timeout=30s", hook.address.port());
    let post = format!("Post \"{url}\": ");
    let returned = "returned invalid object: ";
    let metadata = "returned invalid metadata: ";
    let table = [
        ("garbage", "failed: couldn't get version/kind; json parse error: ".to_owned()),
        (
            "broken",
            "failed: an error on the server (\"on fire\") has prevented the request from succeeding"
                .to_owned(),
        ),
        (
            "moved",
            "failed: the server responded with the status code 307 but did not return more information"
                .to_owned(),
        ),
        ("cut", format!("failed: {post}EOF")),
        ("silent", "failed: no response provided".to_owned()),
        ("other-uid", "failed: expected response.uid=".to_owned()),
        ("undecided", "failed: response.result.status was '', not 'Success'".to_owned()),
        ("fails", "failed: will not".to_owned()),
        ("fewer", "returned 0 objects, expected 1".to_owned()),
        ("more", "returned 2 objects, expected 1".to_owned()),
        ("renamed", format!("{returned}must have the same name: a != worse")),
        ("moved-away", format!("{returned}must have the same namespace: default != elsewhere")),
        ("other-object", format!("{returned}must have the same UID: ")),
        (
            "other-version",
            "returned invalid object at index 0: invalid groupVersion (expected example.com/v1, received example.com/v3)".to_owned(),
        ),
        ("other-kind", "returned invalid object at index 0: invalid kind (expected Host, received Guest)".to_owned()),
        ("bare", format!("{returned}must have the same name: a != ")),
        ("listed", format!("{metadata}invalid metadata.labels of type []interface {{}} in converted object")),
        (
            "numbered",
            format!("{metadata}metadata.labels[a] must be a string, but is int64 in converted object"),
        ),
        ("mislabelled", format!("{metadata}metadata.labels: Invalid value: \"not a value!\"")),
    ];
    for (wish, why) in table {
        let mut object = host("v2", "a", json!({}));
        object["metadata"]["labels"] = json!({"do": wish});
        let answer = lab.send("POST", V2, &object).await;
        let status = answer.json();
        let message = status["message"].as_str().unwrap_or("");
        let wanted = format!("conversion webhook for example.com/v2, Kind=Host {why}");
        assert!(answer.code == 500 && message.starts_with(&wanted), "{wish}: {status}\n{wanted}");
    }

    // What is stored and cannot be converted is there in its own version, and nowhere else.
    let mut object = host("v1", "stuck", json!({}));
    object["metadata"]["labels"] = json!({"do": "fails"});
    lab.create(V1, &object).await;
    assert_eq!(lab.get(&format!("{V1}/stuck")).await.code, 200);
    let failed = "conversion webhook for example.com/v1, Kind=Host failed: will not";
    refused(&lab.get(&format!("{V2}/stuck")).await, 500, "", failed);
    refused(&lab.get(V2).await, 500, "", failed);
    let patch = lab.patch(&format!("{V2}/stuck"), "merge-patch+json", &json!({"spec": {"host": "x"}})).await;
    refused(&patch, 500, "", failed);
    assert_eq!(lab.send("DELETE", &format!("{V1}/stuck"), &json!({})).await.code, 200);
    assert_eq!(lab.get(V2).await.code, 200);
    lab.end().await;
}
