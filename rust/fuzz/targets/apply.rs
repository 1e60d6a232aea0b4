//! Any operations in any order: sizes add up, order makes no difference, files read back, budgets hold.
#![no_main]

use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;
use tfgrpo_core::{Library, Operation, OperationKind};

#[derive(Arbitrary, Debug)]
struct Change {
    kind: u8,
    target: u8,
    text: String,
    stale: bool,
    source: u8,
    parent: Option<u8>,
}

impl Change {
    fn operation(self, version: u64) -> Operation {
        Operation {
            kind: match self.kind % 6 {
                0 => OperationKind::Modify,
                1 => OperationKind::Delete,
                2 => OperationKind::Keep,
                _ => OperationKind::Add,
            },
            target: Some(format!("E{}", self.target % 32)),
            text: self.text,
            base_version: if self.stale { version.saturating_sub(1) } else { version },
            source: (self.source % 4).to_string(),
            index: 0,
            sources: Vec::new(),
            parents: self.parent.map(|parent| format!("E{}", parent % 32)).into_iter().collect(),
        }
    }
}

fuzz_target!(|input: (Vec<Vec<Change>>, u8)| {
    let (steps, budget) = input;
    let mut library = Library::default();
    for step in steps {
        let operations: Vec<Operation> =
            step.into_iter().map(|change| change.operation(library.version())).collect();
        let backwards = operations.iter().rev().cloned().collect();
        let (next, report) = library.apply(operations);
        assert_eq!(library.apply(backwards).0.digest(), next.digest());
        assert_eq!(next.len() + report.deleted.len(), library.len() + report.added.len());
        library = next;
        let again = Library::from_json(&library.to_json().unwrap()).unwrap();
        assert_eq!(again.digest(), library.digest());
        let prior = library.prior("Learned:", budget.into());
        assert!(prior.tokens <= budget.into());
        assert_eq!(prior, again.prior("Learned:", budget.into()));
    }
});
