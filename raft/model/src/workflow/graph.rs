//! The edges of a DAG, the other way round.

use serde::{Deserialize, Serialize};

use super::TaskDefinition;

/// Who comes after whom: the reverse of [`TaskDefinition::needs`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Graph {
    successors: Vec<Vec<u32>>,
}

impl Graph {
    /// The graph of `tasks`. Positions that do not exist are passed over.
    #[must_use]
    pub fn new(tasks: &[TaskDefinition]) -> Self {
        let mut successors = vec![Vec::new(); tasks.len()];
        for (task, position) in tasks.iter().zip(0u32..) {
            for &need in &task.needs {
                if let Some(after) = successors.get_mut(need as usize) {
                    after.push(position);
                }
            }
        }
        Self { successors }
    }

    /// The positions of the tasks that need the one at `position`, ascending.
    #[must_use]
    pub fn successors(&self, position: usize) -> &[u32] {
        self.successors.get(position).map_or(&[], Vec::as_slice)
    }

    /// A cycle, if there is one: positions, each needing the one before it, and the first
    /// the last. Positions that do not exist are passed over.
    #[must_use]
    pub fn cycle(tasks: &[TaskDefinition]) -> Option<Vec<usize>> {
        let graph = Self::new(tasks);
        let exists = |need: &&u32| (**need as usize) < tasks.len();
        let needs = |task: &TaskDefinition| task.needs.iter().filter(exists).count();
        let mut open: Vec<usize> = tasks.iter().map(needs).collect();
        let mut free: Vec<usize> = (0..tasks.len()).filter(|&at| open[at] == 0).collect();
        let mut sorted = 0;
        while let Some(at) = free.pop() {
            sorted += 1;
            for &after in graph.successors(at) {
                let after = after as usize;
                open[after] -= 1;
                if open[after] == 0 {
                    free.push(after);
                }
            }
        }
        (sorted < tasks.len()).then(|| Self::walk_back(tasks, &open))
    }

    /// Follows open needs backwards until a task comes up again: each task that could not be
    /// sorted needs another such.
    fn walk_back(tasks: &[TaskDefinition], open: &[usize]) -> Vec<usize> {
        let is_open = |at: &usize| open.get(*at).is_some_and(|&needs| needs > 0);
        let mut at = (0..tasks.len()).find(is_open).expect("an unsorted task is left");
        let mut path = Vec::new();
        let mut seen_at = vec![None; tasks.len()];
        loop {
            if let Some(first) = seen_at[at] {
                let mut cycle = path.split_off(first);
                cycle.reverse();
                return cycle;
            }
            seen_at[at] = Some(path.len());
            path.push(at);
            let mut needs = tasks[at].needs.iter().map(|&need| need as usize);
            at = needs.find(is_open).expect("an unsorted task needs an unsorted one");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Name;
    use crate::workflow::Action;

    fn tasks(needs: &[&[u32]]) -> Vec<TaskDefinition> {
        let task = |(at, needs): (usize, &&[u32])| TaskDefinition {
            needs: needs.to_vec(),
            ..TaskDefinition::new(format!("t{at}").parse::<Name>().unwrap(), Action::Noop)
        };
        needs.iter().enumerate().map(task).collect()
    }

    #[test]
    fn successors_are_the_needs_turned_round() {
        let graph = Graph::new(&tasks(&[&[], &[0], &[0], &[1, 2]]));
        assert_eq!(graph.successors(0), [1, 2]);
        assert_eq!(graph.successors(1), [3]);
        assert_eq!(graph.successors(3), [0; 0]);
        assert_eq!(graph.successors(4), [0; 0]);
    }

    #[test]
    fn finds_the_cycle_and_not_what_leads_to_it() {
        assert_eq!(Graph::cycle(&tasks(&[&[], &[0], &[0, 1]])), None);
        assert_eq!(Graph::cycle(&tasks(&[&[0]])), Some(vec![0]));
        // 3 and 4 come after the cycle of 1 and 2, 0 before.
        let cycle = Graph::cycle(&tasks(&[&[], &[0, 2], &[1], &[2], &[3]])).unwrap();
        assert_eq!(cycle.len(), 2);
        assert!(cycle.contains(&1) && cycle.contains(&2));
    }

    #[test]
    fn each_of_a_cycle_needs_the_one_before() {
        let tasks = tasks(&[&[3], &[0], &[1], &[2]]);
        let cycle = Graph::cycle(&tasks).unwrap();
        assert_eq!(cycle.len(), 4);
        for (before, after) in cycle.iter().zip(cycle.iter().cycle().skip(1)) {
            assert!(tasks[*after].needs.contains(&u32::try_from(*before).unwrap()));
        }
    }

    #[test]
    fn needs_that_do_not_exist_are_passed_over() {
        assert_eq!(Graph::cycle(&tasks(&[&[7], &[0, u32::MAX]])), None);
        assert_eq!(Graph::cycle(&tasks(&[&[7, 1], &[9, 0]])).unwrap().len(), 2);
    }
}
