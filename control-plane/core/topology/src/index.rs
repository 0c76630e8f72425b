//! Small numbers that stand for things, so that graphs are made of numbers and not of texts.

use std::marker::PhantomData;

use slab::Slab;

/// A table's row number for things of one kind.
pub(crate) trait Index: Copy {
    fn from_row(row: usize) -> Self;
    fn row(self) -> usize;
}

macro_rules! indices {
    ($($(#[$doc:meta])* $name:ident),* $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub(crate) struct $name(u32);

        impl Index for $name {
            fn from_row(row: usize) -> Self {
                $name(u32::try_from(row).expect("the limits keep every table far below four thousand million rows"))
            }

            fn row(self) -> usize {
                self.0 as usize
            }
        }
    )*};
}

indices! {
    /// A host.
    HostIndex,
    /// A process.
    ProcessIndex,
    /// A container.
    ContainerIndex,
    /// A group of processes or containers that share a text.
    GroupIndex,
    /// A flow: one end of a group of connections.
    FlowIndex,
    /// A channel: where the two ends of flows meet.
    ChannelIndex,
    /// A Kubernetes object.
    ObjectIndex,
}

/// Rows that keep their number for as long as they live.
#[derive(Debug)]
pub(crate) struct Table<I, T> {
    rows: Slab<T>,
    kind: PhantomData<I>,
}

impl<I, T> Default for Table<I, T> {
    fn default() -> Self {
        Table { rows: Slab::new(), kind: PhantomData }
    }
}

impl<I: Index, T> Table<I, T> {
    pub(crate) fn insert(&mut self, row: T) -> I {
        I::from_row(self.rows.insert(row))
    }

    pub(crate) fn get(&self, index: I) -> Option<&T> {
        self.rows.get(index.row())
    }

    pub(crate) fn get_mut(&mut self, index: I) -> Option<&mut T> {
        self.rows.get_mut(index.row())
    }

    pub(crate) fn remove(&mut self, index: I) -> Option<T> {
        self.rows.try_remove(index.row())
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (I, &T)> {
        self.rows.iter().map(|(row, value)| (I::from_row(row), value))
    }
}

/// For rows that the caller has just been told exist.
impl<I: Index, T> std::ops::Index<I> for Table<I, T> {
    type Output = T;

    fn index(&self, index: I) -> &T {
        &self.rows[index.row()]
    }
}

impl<I: Index, T> std::ops::IndexMut<I> for Table<I, T> {
    fn index_mut(&mut self, index: I) -> &mut T {
        &mut self.rows[index.row()]
    }
}

/// A node of some view, as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Entity {
    InternetIn,
    InternetOut,
    Host(HostIndex),
    /// Processes of a host that are in no container.
    Uncontained(HostIndex),
    Process(ProcessIndex),
    Container(ContainerIndex),
    /// Processes of one name.
    Name(GroupIndex),
    /// Containers of one image name.
    Image(GroupIndex),
    /// Containers of one host name.
    Hostname(GroupIndex),
    /// A Kubernetes object.
    Object(ObjectIndex),
    /// What runs on a host outside of any pod.
    Unmanaged(HostIndex),
    /// Containers of one Mesos task.
    Task(GroupIndex),
    /// What runs on a host and is no Mesos task.
    Untasked(HostIndex),
    /// A known service outside, by its name.
    External(GroupIndex),
}

impl Entity {
    /// Whether it stands for something that is not watched itself.
    pub(crate) fn is_pseudo(self) -> bool {
        use Entity::{External, InternetIn, InternetOut, Uncontained, Unmanaged, Untasked};
        matches!(self, InternetIn | InternetOut | Uncontained(_) | Unmanaged(_) | Untasked(_) | External(_))
    }
}
