//! What a message looks like on the way through the router: who it is for, then the frame.

use bytes::{BufMut, Bytes, BytesMut};

use super::{Delivery, FilterId, SessionKey, ShareId};

/// A message that lacks only its sequence number.
pub(super) struct Unsealed(BytesMut);

impl Unsealed {
    /// Octets it has, sequence number included.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Number it.
    pub(super) fn seal(mut self, sequence: u64) -> Bytes {
        if let Some(place) = self.0.first_chunk_mut::<8>() {
            *place = sequence.to_be_bytes();
        }
        self.0.freeze()
    }
}

/// Octets of the message for one shard.
pub(super) fn size(filters: &[FilterId], shared: &[(SessionKey, ShareId)], frame: &[u8]) -> usize {
    FIXED + filters.len() * FILTER + shared.len() * SHARED + frame.len()
}

/// The message for one shard.
pub(super) fn encode(
    source: usize,
    filters: &[FilterId],
    shared: &[(SessionKey, ShareId)],
    frame: &[u8],
) -> Unsealed {
    let mut out = BytesMut::with_capacity(size(filters, shared, frame));
    out.put_u64(0);
    out.put_u32(source as u32);
    out.put_u32(filters.len() as u32);
    out.put_u32(shared.len() as u32);
    for id in filters {
        out.put_u64(id.to_bits());
    }
    for (session, share) in shared {
        out.put_u64(session.0);
        out.put_u64(share.to_bits());
    }
    out.put_slice(frame);
    Unsealed(out)
}

/// The sequence number and the delivery in a message; `None` if it is no message of ours.
pub(super) fn decode(mut message: Bytes) -> Option<(u64, Delivery)> {
    let (sequence, rest) = message.split_first_chunk::<8>()?;
    let sequence = u64::from_be_bytes(*sequence);
    let (source, rest) = rest.split_first_chunk::<4>()?;
    let source = u32::from_be_bytes(*source) as usize;
    let (filters, rest) = rest.split_first_chunk::<4>()?;
    let filters = u32::from_be_bytes(*filters) as usize;
    let (shared, _) = rest.split_first_chunk::<4>()?;
    let shared = u32::from_be_bytes(*shared) as usize;

    let size = filters * FILTER + shared * SHARED;
    if message.len() < FIXED + size {
        return None;
    }
    let mut ids = message.split_to(FIXED + size);
    let _ = ids.split_to(FIXED);
    let delivery = Delivery {
        source,
        ids,
        filters: filters * FILTER,
        frame: message,
    };
    Some((sequence, delivery))
}

/// The filter ids in the first part of the ids of a delivery.
pub(super) fn filters(ids: &[u8]) -> impl Iterator<Item = FilterId> + '_ {
    let (chunks, _) = ids.as_chunks::<FILTER>();
    chunks
        .iter()
        .map(|chunk| FilterId::from_bits(u64::from_be_bytes(*chunk)))
}

/// The members in the second part of the ids of a delivery.
pub(super) fn shared(ids: &[u8]) -> impl Iterator<Item = (SessionKey, ShareId)> + '_ {
    let (words, _) = ids.as_chunks::<8>();
    let (pairs, _) = words.as_chunks::<2>();
    pairs.iter().map(|[session, share]| {
        let session = SessionKey(u64::from_be_bytes(*session));
        (session, ShareId::from_bits(u64::from_be_bytes(*share)))
    })
}

/// Sequence number, source, and the two counts.
pub(super) const FIXED: usize = 8 + 4 + 4 + 4;
pub(super) const FILTER: usize = 8;
const SHARED: usize = 16;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn messages_round_trip(
            sequence in any::<u64>(),
            source in 0_usize..256,
            filters in proptest::collection::vec(any::<u64>(), 0..20),
            shared in proptest::collection::vec(any::<(u64, u64)>(), 0..20),
            frame in proptest::collection::vec(any::<u8>(), 0..100),
        ) {
            let filters: Vec<_> = filters.into_iter().map(FilterId::from_bits).collect();
            let shared: Vec<_> = shared
                .into_iter()
                .map(|(session, share)| (SessionKey(session), ShareId::from_bits(share)))
                .collect();
            let message = encode(source, &filters, &shared, &frame).seal(sequence);
            let (number, delivery) = decode(message).unwrap();
            prop_assert_eq!((number, delivery.source), (sequence, source));
            prop_assert_eq!(delivery.filters().collect::<Vec<_>>(), filters);
            prop_assert_eq!(delivery.shared().collect::<Vec<_>>(), shared);
            prop_assert_eq!(&delivery.frame[..], &frame[..]);
        }

        #[test]
        fn no_octets_make_decoding_panic(octets in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(octets.into());
        }
    }
}
