//! Cases of bad pieces: who is asked, who is blamed, and the ciphertext by which that is found out.

use redb::{ReadableTable, TableDefinition, WriteTransaction};
use swarmseal_core::SubscriberId;

use super::{Bytes32, ChangeError, Store, StoreError, decode, encode};
use crate::tracker::records::{CaseRecord, Holder, Outcome};
use crate::wire::api::ApiError;

pub(super) const CASES: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("cases");
/// The accuser's ciphertext, as long as its case is open.
pub(super) const EVIDENCE: TableDefinition<'_, Bytes32, &[u8]> = TableDefinition::new("evidence");
/// suspect ‖ case, of open cases.
pub(super) const OPEN: TableDefinition<'_, [u8; 64], ()> = TableDefinition::new("open cases");
/// subscriber or seed ‖ case, of those that ended against it.
pub(super) const LOST: TableDefinition<'_, [u8; 64], ()> = TableDefinition::new("lost cases");

/// Open cases in all, and of one accuser: ciphertext takes room.
const MAX_OPEN: usize = 1024;
const MAX_OF_ONE: usize = 32;

pub(super) fn make_tables(write: &WriteTransaction) -> Result<(), StoreError> {
    write.open_table(CASES)?;
    write.open_table(EVIDENCE)?;
    write.open_table(OPEN)?;
    write.open_table(LOST)?;
    Ok(())
}

impl Store {
    /// A case.
    pub(in crate::tracker) fn case(&self, id: &Bytes32) -> Result<Option<CaseRecord>, StoreError> {
        self.read(CASES, id)
    }

    /// The accuser's ciphertext of an open case.
    pub(in crate::tracker) fn evidence(&self, id: &Bytes32) -> Result<Option<Vec<u8>>, StoreError> {
        let read = self.database.begin_read()?;
        let bytes = read.open_table(EVIDENCE)?.get(id)?;
        Ok(bytes.map(|bytes| bytes.value().to_vec()))
    }

    /// Writes a case down that is not there yet. One that is open comes with the accuser's ciphertext. Errors:
    /// [`ApiError::Rate`] where the accuser has too many open, [`ApiError::Busy`] where there are too many in all.
    pub(in crate::tracker) fn add_case(
        &self,
        id: &Bytes32,
        case: &CaseRecord,
        ciphertext: &[u8],
    ) -> Result<(), ChangeError> {
        let write = self.begin()?;
        {
            if case.outcome == Outcome::Open {
                let open = open_cases(&write)?;
                if open.iter().filter(|(_, other)| other.accuser == case.accuser).count() >= MAX_OF_ONE {
                    return Err(ApiError::Rate.into());
                }
                if open.len() >= MAX_OPEN {
                    return Err(ApiError::Busy.into());
                }
                write.open_table(EVIDENCE)?.insert(id, ciphertext)?;
            }
            put(&write, id, case)?;
        }
        write.commit()?;
        Ok(())
    }

    /// The suspect of an open case has shown a statement: it is cleared and `next` is asked until `deadline`, or not. Errors:
    /// [`ApiError::UnknownCase`] where the case has gone on meanwhile.
    pub(in crate::tracker) fn go_on(
        &self,
        id: &Bytes32,
        suspect: &SubscriberId,
        next: Option<Next>,
    ) -> Result<CaseRecord, ChangeError> {
        let write = self.begin()?;
        let case = {
            let mut case = open_case(&write, id)?.filter(|case| case.suspect == *suspect);
            let case = case.as_mut().ok_or(ApiError::UnknownCase)?;
            take(&write, id, case)?;
            match next {
                Some(Next { suspect, stated, deadline, outcome }) => {
                    case.cleared.push(Holder { id: case.suspect });
                    (case.suspect, case.stated, case.deadline) = (suspect, stated, deadline);
                    (case.outcome, case.attempts) = (outcome, 0);
                }
                None => case.attempts += 1,
            }
            put(&write, id, case)?;
            case.clone()
        };
        write.commit()?;
        Ok(case)
    }

    /// Ends open cases whose suspects had their time; those that ended.
    pub(in crate::tracker) fn end_overdue(&self, now: u64) -> Result<Vec<(Bytes32, CaseRecord)>, StoreError> {
        let overdue = |case: &CaseRecord| case.deadline <= now;
        // Mostly there is nothing to do, and nothing to write.
        let read = self.database.begin_read()?;
        let (open, table) = (read.open_table(OPEN)?, read.open_table(CASES)?);
        let mut found = false;
        for row in open.iter()? {
            let id = case_of(&row?.0.value());
            let case: Option<CaseRecord> =
                table.get(id)?.map(|bytes| decode("cases", bytes.value())).transpose()?;
            found |= case.is_some_and(|case| overdue(&case));
        }
        if !found {
            return Ok(Vec::new());
        }
        let write = self.begin()?;
        let mut ended = open_cases(&write)?;
        ended.retain(|(_, case)| overdue(case));
        for (id, case) in &mut ended {
            take(&write, id, case)?;
            case.outcome = Outcome::Blamed;
            put(&write, id, case)?;
        }
        write.commit()?;
        Ok(ended)
    }

    /// Open cases in which this subscriber is asked.
    pub(in crate::tracker) fn questions(
        &self,
        suspect: &SubscriberId,
        limit: usize,
    ) -> Result<Vec<(Bytes32, CaseRecord)>, StoreError> {
        let read = self.database.begin_read()?;
        let (open, table) = (read.open_table(OPEN)?, read.open_table(CASES)?);
        let mut found = Vec::new();
        for row in open.range(of(suspect))?.take(limit) {
            let id = case_of(&row?.0.value());
            if let Some(bytes) = table.get(id)? {
                found.push((id, decode("cases", bytes.value())?));
            }
        }
        Ok(found)
    }

    /// How many cases ended against this subscriber or seed.
    pub(in crate::tracker) fn lost_cases(&self, subscriber: &SubscriberId) -> Result<usize, StoreError> {
        let read = self.database.begin_read()?;
        Ok(read.open_table(LOST)?.range(of(subscriber))?.count())
    }

    /// Everybody against whom at least `least` cases ended.
    pub(in crate::tracker) fn losers(&self, least: usize) -> Result<Vec<SubscriberId>, StoreError> {
        let read = self.database.begin_read()?;
        let mut found: Vec<(SubscriberId, usize)> = Vec::new();
        for row in read.open_table(LOST)?.iter()? {
            let subscriber = subscriber_of(&row?.0.value());
            match found.last_mut() {
                Some((last, count)) if *last == subscriber => *count += 1,
                _ => found.push((subscriber, 1)),
            }
        }
        Ok(found.into_iter().filter(|(_, count)| *count >= least).map(|(subscriber, _)| subscriber).collect())
    }

    /// Holds what ended against a subscriber no longer against it; how many cases that were.
    pub(in crate::tracker) fn pardon(&self, subscriber: &SubscriberId) -> Result<usize, StoreError> {
        let write = self.begin()?;
        let mut count = 0;
        write.open_table(LOST)?.retain_in(of(subscriber), |_, ()| {
            count += 1;
            false
        })?;
        write.commit()?;
        Ok(count)
    }

    /// All cases after an id, at most `limit`.
    pub(in crate::tracker) fn cases(
        &self,
        after: Option<Bytes32>,
        limit: usize,
    ) -> Result<Vec<(Bytes32, CaseRecord)>, StoreError> {
        use std::ops::Bound::{Excluded, Unbounded};
        let read = self.database.begin_read()?;
        let first = after.map_or(Unbounded, Excluded);
        let table = read.open_table(CASES)?;
        let rows = table.range::<Bytes32>((first, Unbounded))?.take(limit);
        rows.map(|row| {
            let (id, bytes) = row?;
            Ok((id.value(), decode("cases", bytes.value())?))
        })
        .collect()
    }
}

/// Who is asked next.
pub(in crate::tracker) struct Next {
    pub(in crate::tracker) suspect: SubscriberId,
    pub(in crate::tracker) stated: u64,
    pub(in crate::tracker) deadline: u64,
    /// [`Outcome::Open`], or [`Outcome::Blamed`] where there is nobody before.
    pub(in crate::tracker) outcome: Outcome,
}

fn open_cases(write: &WriteTransaction) -> Result<Vec<(Bytes32, CaseRecord)>, StoreError> {
    let (open, table) = (write.open_table(OPEN)?, write.open_table(CASES)?);
    let mut found = Vec::new();
    for row in open.iter()? {
        let id = case_of(&row?.0.value());
        if let Some(bytes) = table.get(id)? {
            found.push((id, decode("cases", bytes.value())?));
        }
    }
    Ok(found)
}

fn open_case(write: &WriteTransaction, id: &Bytes32) -> Result<Option<CaseRecord>, StoreError> {
    let table = write.open_table(CASES)?;
    let case: Option<CaseRecord> = table.get(id)?.map(|bytes| decode("cases", bytes.value())).transpose()?;
    Ok(case.filter(|case| case.outcome == Outcome::Open))
}

/// Before an open case changes.
fn take(write: &WriteTransaction, id: &Bytes32, case: &CaseRecord) -> Result<(), StoreError> {
    write.open_table(OPEN)?.remove(key(&case.suspect, id))?;
    Ok(())
}

fn put(write: &WriteTransaction, id: &Bytes32, case: &CaseRecord) -> Result<(), StoreError> {
    write.open_table(CASES)?.insert(id, encode(case).as_slice())?;
    let listed = match case.outcome {
        Outcome::Open => Some((OPEN, case.suspect)),
        Outcome::Blamed => Some((LOST, case.suspect)),
        Outcome::FalseAccusation => Some((LOST, case.accuser)),
        Outcome::Lapsed => None,
    };
    if let Some((definition, subscriber)) = listed {
        write.open_table(definition)?.insert(key(&subscriber, id), ())?;
    }
    if case.outcome != Outcome::Open {
        write.open_table(EVIDENCE)?.remove(id)?;
    }
    Ok(())
}

fn key(subscriber: &SubscriberId, case: &Bytes32) -> [u8; 64] {
    let mut key = [0; 64];
    key[..32].copy_from_slice(&subscriber.0);
    key[32..].copy_from_slice(case);
    key
}

fn of(subscriber: &SubscriberId) -> std::ops::RangeInclusive<[u8; 64]> {
    key(subscriber, &[0; 32])..=key(subscriber, &[0xFF; 32])
}

fn case_of(key: &[u8; 64]) -> Bytes32 {
    let mut case = [0; 32];
    case.copy_from_slice(&key[32..]);
    case
}

fn subscriber_of(key: &[u8; 64]) -> SubscriberId {
    let mut subscriber = [0; 32];
    subscriber.copy_from_slice(&key[..32]);
    SubscriberId(subscriber)
}

#[cfg(test)]
mod tests {
    use swarmseal_core::TorrentId;

    use super::super::tests::{refusal, store};
    use super::*;

    const fn who(n: u8) -> SubscriberId {
        SubscriberId([n; 32])
    }

    fn case(accuser: u8, suspect: u8) -> CaseRecord {
        CaseRecord {
            torrent_id: TorrentId([1; 32]),
            piece: 3,
            accuser: who(accuser),
            epoch: 1,
            cleared: Vec::new(),
            suspect: who(suspect),
            stated: 50,
            attempts: 0,
            opened: 60,
            deadline: 100,
            outcome: Outcome::Open,
        }
    }

    fn asked(store: &Store, suspect: u8) -> usize {
        store.questions(&who(suspect), 100).unwrap().len()
    }

    #[test]
    fn a_case_goes_from_hand_to_hand_and_ends() {
        let (_directory, store) = store();
        let id = [7; 32];
        store.add_case(&id, &case(1, 2), b"ciphertext").unwrap();
        assert_eq!((asked(&store, 2), asked(&store, 3)), (1, 0));
        assert_eq!(store.go_on(&id, &who(2), None).unwrap().attempts, 1);
        assert_eq!(refusal(store.go_on(&id, &who(3), None)), ApiError::UnknownCase);
        let next = Next { suspect: who(3), stated: 40, deadline: 200, outcome: Outcome::Open };
        let gone_on = store.go_on(&id, &who(2), Some(next)).unwrap();
        assert_eq!((gone_on.attempts, gone_on.cleared.as_slice()), (0, &[Holder { id: who(2) }][..]));
        assert_eq!((asked(&store, 2), asked(&store, 3)), (0, 1));
        assert!(store.end_overdue(199).unwrap().is_empty());
        assert_eq!(store.evidence(&id).unwrap().unwrap(), b"ciphertext");
        let ended = store.end_overdue(200).unwrap();
        assert_eq!((ended.len(), ended[0].1.suspect), (1, who(3)));
        assert_eq!((store.evidence(&id).unwrap(), asked(&store, 3)), (None, 0));
        assert_eq!(store.case(&id).unwrap().unwrap().outcome, Outcome::Blamed);
        assert_eq!((store.lost_cases(&who(3)).unwrap(), store.lost_cases(&who(2)).unwrap()), (1, 0));
        assert!(store.end_overdue(u64::MAX).unwrap().is_empty());
    }

    #[test]
    fn losses_are_counted_until_they_are_pardoned() {
        let (_directory, store) = store();
        for n in 0..3 {
            let blamed = CaseRecord { outcome: Outcome::Blamed, ..case(1, 9) };
            store.add_case(&[n; 32], &blamed, b"").unwrap();
        }
        let lied = CaseRecord { outcome: Outcome::FalseAccusation, ..case(1, 9) };
        store.add_case(&[3; 32], &lied, b"").unwrap();
        assert_eq!(store.losers(3).unwrap(), [who(9)]);
        assert_eq!(store.losers(1).unwrap(), [who(1), who(9)]);
        assert_eq!(store.pardon(&who(9)).unwrap(), 3);
        assert_eq!(store.losers(1).unwrap(), [who(1)]);
        assert_eq!(store.cases(None, 10).unwrap().len(), 4);
        assert_eq!(store.cases(Some([1; 32]), 10).unwrap().len(), 2);
    }

    #[test]
    fn nobody_fills_the_store_with_accusations() {
        let (_directory, store) = store();
        for n in 0..MAX_OF_ONE {
            store.add_case(&[n as u8; 32], &case(1, 9), b"").unwrap();
        }
        assert_eq!(refusal(store.add_case(&[200; 32], &case(1, 9), b"")), ApiError::Rate);
        store.add_case(&[201; 32], &case(2, 9), b"").unwrap();
    }
}
