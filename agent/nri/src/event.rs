//! What a plugin can be told, and which runtime knows it.

use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;

/// Something that happens to a pod or a container, of which a plugin can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Event {
    /// A sandbox was made, its network too; no container runs yet. Can be refused.
    RunPodSandbox = 1,
    /// A sandbox is stopped.
    StopPodSandbox = 2,
    /// A sandbox is removed.
    RemovePodSandbox = 3,
    /// A container is being created. Can be adjusted, and refused.
    CreateContainer = 4,
    /// A container was created.
    PostCreateContainer = 5,
    /// A container is being started. Can be refused.
    StartContainer = 6,
    /// A container was started.
    PostStartContainer = 7,
    /// A container's resources change. Can be adjusted, and refused.
    UpdateContainer = 8,
    /// A container's resources were changed.
    PostUpdateContainer = 9,
    /// A container is stopped.
    StopContainer = 10,
    /// A container is removed.
    RemoveContainer = 11,
    /// A pod's resources change. Can be refused. Since NRI 0.10.
    UpdatePodSandbox = 12,
    /// A pod's resources were changed. Since NRI 0.10.
    PostUpdatePodSandbox = 13,
    /// All plugins adjusted a container; is the result acceptable? Since NRI 0.10.
    ValidateContainerAdjustment = 14,
}

impl Event {
    /// Every event.
    pub const ALL: [Self; 14] = [
        Self::RunPodSandbox,
        Self::StopPodSandbox,
        Self::RemovePodSandbox,
        Self::CreateContainer,
        Self::PostCreateContainer,
        Self::StartContainer,
        Self::PostStartContainer,
        Self::UpdateContainer,
        Self::PostUpdateContainer,
        Self::StopContainer,
        Self::RemoveContainer,
        Self::UpdatePodSandbox,
        Self::PostUpdatePodSandbox,
        Self::ValidateContainerAdjustment,
    ];

    /// The event with this number on the wire.
    pub fn from_number(number: i32) -> Option<Self> {
        Self::ALL.into_iter().find(|event| i32::from(*event as u8) == number)
    }

    /// Its number on the wire.
    pub const fn number(self) -> i32 {
        self as i32
    }

    /// Its name, which is also the name of its method.
    pub const fn name(self) -> &'static str {
        match self {
            Self::RunPodSandbox => "RunPodSandbox",
            Self::StopPodSandbox => "StopPodSandbox",
            Self::RemovePodSandbox => "RemovePodSandbox",
            Self::CreateContainer => "CreateContainer",
            Self::PostCreateContainer => "PostCreateContainer",
            Self::StartContainer => "StartContainer",
            Self::PostStartContainer => "PostStartContainer",
            Self::UpdateContainer => "UpdateContainer",
            Self::PostUpdateContainer => "PostUpdateContainer",
            Self::StopContainer => "StopContainer",
            Self::RemoveContainer => "RemoveContainer",
            Self::UpdatePodSandbox => "UpdatePodSandbox",
            Self::PostUpdatePodSandbox => "PostUpdatePodSandbox",
            Self::ValidateContainerAdjustment => "ValidateContainerAdjustment",
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no event's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no event of NRI; events are named as their methods, such as RunPodSandbox")]
pub struct UnknownEvent(pub String);

impl FromStr for Event {
    type Err = UnknownEvent;

    fn from_str(name: &str) -> Result<Self, UnknownEvent> {
        let same = |event: &Self| event.name().eq_ignore_ascii_case(name);
        Self::ALL.into_iter().find(same).ok_or_else(|| UnknownEvent(name.to_owned()))
    }
}

/// A set of events.
///
/// A runtime refuses the registration of a plugin that asks for an event that the runtime does not
/// know, so what a plugin wants is cut to what the runtime knows: see
/// [`RuntimeInfo::known_events`](crate::RuntimeInfo::known_events).
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct EventMask(u32);

impl EventMask {
    /// No event.
    pub const NONE: Self = Self(0);
    /// The events of NRI before 0.10, which every runtime with NRI knows.
    pub const BASE: Self = Self((1 << 11) - 1);
    /// Every event that this crate knows: NRI 0.10 and newer.
    pub const ALL: Self = Self((1 << 14) - 1);

    /// The set of these events.
    pub const fn of(events: &[Event]) -> Self {
        let (mut bits, mut next) = (0, 0);
        while next < events.len() {
            bits |= Self::bit(events[next]);
            next += 1;
        }
        Self(bits)
    }

    const fn bit(event: Event) -> u32 {
        1 << (event as u32 - 1)
    }

    /// Whether the set has this event.
    pub const fn contains(self, event: Event) -> bool {
        self.0 & Self::bit(event) != 0
    }

    /// Whether the set has no event.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// What both sets have.
    #[must_use]
    pub const fn intersection(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// What this set has and the other has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The events, in the order of their numbers.
    pub fn events(self) -> impl Iterator<Item = Event> {
        Event::ALL.into_iter().filter(move |event| self.contains(*event))
    }

    /// The set as it is on the wire.
    pub fn to_wire(self) -> i32 {
        self.0.cast_signed()
    }

    /// The set that these bits on the wire mean, and the bits that mean no event that this crate
    /// knows. 0 on the wire stands for every event, which is the receiver's to interpret.
    pub fn from_wire(bits: i32) -> (Self, u32) {
        let bits = bits.cast_unsigned();
        (Self(bits & Self::ALL.0), bits & !Self::ALL.0)
    }
}

impl BitOr for EventMask {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl From<Event> for EventMask {
    fn from(event: Event) -> Self {
        Self::of(&[event])
    }
}

impl FromIterator<Event> for EventMask {
    fn from_iter<I: IntoIterator<Item = Event>>(events: I) -> Self {
        events.into_iter().fold(Self::NONE, |mask, event| mask | event.into())
    }
}

impl fmt::Display for EventMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("none");
        }
        for (index, event) in self.events().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{event}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for EventMask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EventMask({self})")
    }
}
