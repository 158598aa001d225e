//! Tasks that keep the ledger, as lists for a workflow file.

/// A task that works until the test releases it by `go`, and one after it.
pub(crate) const LONG_THEN_NEXT: &str = "
  - id: long
    run: |
      . \"$PROOF/ledger.sh\"
      began; work_until go; ended
  - id: next
    needs: [long]
    run: |
      . \"$PROOF/ledger.sh\"
      began; ended
";

/// One that is done at once.
pub(crate) const SHORT: &str = "
  - id: short
    run: |
      . \"$PROOF/ledger.sh\"
      began; ended
";

/// A task that works for `beats` times 20 ms after its predecessors.
pub(crate) fn task(id: &str, needs: &[&str], beats: usize) -> String {
    let needs = needs.join(", ");
    format!(
        "
  - id: {id}
    needs: [{needs}]
    run: |
      . \"$PROOF/ledger.sh\"
      began; work {beats}; ended
"
    )
}

/// A task that fails so often before it succeeds, and is retried.
pub(crate) fn failing(id: &str, needs: &[&str], failures: u32, retries: u32) -> String {
    let needs = needs.join(", ");
    format!(
        "
  - id: {id}
    needs: [{needs}]
    retry: {{limit: {retries}, delay: 100ms}}
    run: |
      . \"$PROOF/ledger.sh\"
      began; [ \"$QUORATE_ATTEMPT\" -gt {failures} ] || exit 7; ended
"
    )
}

/// So many short tasks, each after the one before.
pub(crate) fn chain(length: usize, beats: usize) -> String {
    let id = |position: usize| format!("t{position}");
    (0..length)
        .map(|position| match position.checked_sub(1) {
            None => task(&id(position), &[], beats),
            Some(before) => task(&id(position), &[&id(before)], beats),
        })
        .collect()
}
