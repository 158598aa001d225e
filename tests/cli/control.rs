//! What people do to runs: they pause them, have them go on, stop them.

use crate::user::{Server, User, one_at_a_time, until};

/// A run as the API has it.
fn run(user: &User, id: &str) -> serde_json::Value {
    let got = user.types(&format!("quorate get run/{id} -o json")).exits(0).out;
    serde_json::from_str(&got).unwrap()
}

#[test]
fn a_run_is_paused_between_two_tasks_and_goes_on() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let (begun, end) = (user.home.path().join("begun"), user.home.path().join("end"));
    let text = format!(
        "tasks:\n  - id: first\n    run: touch {}; until [ -e {} ]; do sleep 0.05; done\n  \
         - {{id: second, needs: first, run: 'true'}}\n",
        begun.display(),
        end.display()
    );
    let file = user.file("two.yaml", &text);
    user.types(&format!("quorate submit {file}")).exits(0);
    until("it has begun", || begun.exists().then_some(()));
    user.types("quorate pause @last --reason lunch").exits(0);
    std::fs::write(end, "").unwrap();
    until("the first is through", || {
        (run(&user, "@last")["tasks"]["succeeded"] == 1).then_some(())
    });
    user.types("quorate ls").exits(0).prints("paused");
    user.types("quorate ls tasks @last").exits(0).prints("waits for its run to be resumed");
    user.types("quorate describe @last").exits(0).prints("pause by").prints("lunch");
    user.types("quorate resume @last").exits(0);
    user.types("quorate wait @last").exits(0);
    user.types("quorate pause @last").exits(7);
    user.types("quorate pause ffffffff").exits(6);
}

#[test]
fn a_workflow_is_paused_with_all_its_runs() {
    let _gate = one_at_a_time();
    let mut user = User::new();
    let _server = Server::start(&mut user);
    let file = user.file("quick.yaml", "name: quick\nrun: 'true'\n");
    user.types(&format!("quorate apply -f {file}")).exits(0);
    user.types("quorate pause workflow/quick").exits(0);
    user.types("quorate submit quick").exits(0);
    assert_eq!(run(&user, "@last")["state"], "paused");
    user.types("quorate wait @last --timeout 200ms").exits(5);
    user.types("quorate ls workflows").exits(0).prints("paused");
    user.types("quorate resume workflow/quick").exits(0);
    user.types("quorate wait @last").exits(0);
    user.types("quorate pause workflow/none").exits(6);
}
