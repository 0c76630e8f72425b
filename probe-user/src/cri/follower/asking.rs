//! Asking a runtime for one container, pod or image, and telling what it says.

use std::time::Duration;

use proto::probe::v1::Image;
use tokio::time::Instant;

use super::{End, Follower, Known, UNASKED};
use crate::containers::ContainerFacts;
use crate::cri::client::{Client, CriError, OfOne};
use crate::cri::facts::{self, ImageName};
use crate::driver::Input;

/// Images that are remembered, and for how long: a name may move to another image.
const IMAGES_MAX: usize = 1_024;
const IMAGE_KEPT: Duration = Duration::from_secs(600);

/// While the image store does not answer it is asked again after this long.
const IMAGES_AGAIN: Duration = Duration::from_secs(30);

/// What came of asking for a container or a pod.
pub(super) enum Asked {
    /// It is there, and was told.
    There,
    /// There is no such thing.
    Nothing,
    /// The runtime cannot say.
    Refused(String),
    /// The runtime is well and does not answer this.
    Unanswered(String),
}

impl Follower {
    /// Asks for a container and tells it.
    pub(super) async fn ask_container(&mut self, client: &mut Client, id: &str, pod: Option<&str>) -> Result<Asked, End> {
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let answer = match client.container(id).await? {
            OfOne::Told(answer) => answer,
            OfOne::Nothing => return Ok(Asked::Nothing),
            OfOne::Refused(reason) => return Ok(Asked::Refused(reason)),
            OfOne::Unanswered(reason) => return Ok(self.unanswered(reason)),
        };
        let pod = match pod {
            Some(pod) => Some(pod.to_owned()),
            None => facts::pod_of(&answer),
        };
        if let Some(pod) = pod.as_ref().filter(|pod| !self.pods.contains_key(*pod) && !self.doubts.holds_back(pod, Instant::now()))
            && let Asked::Unanswered(reason) = self.ask_pod(client, pod).await?
        {
            self.doubt(pod, "", reason);
        }
        let state = answer.status.as_ref().map_or(0, |it| it.state);
        let its_pod = pod.as_ref().and_then(|pod| self.pods.get(pod));
        let Some((facts, image)) = facts::container(answer, its_pod, &self.telling).filter(|(facts, _)| facts.record.id == id) else {
            self.count(|metrics| &metrics.runtime_failures, 1);
            return Ok(Asked::Nothing);
        };
        self.known.insert(id.to_owned(), Known { state, is_pod: false });
        self.note_pod_of(id, pod.as_deref());
        self.tell_with_image(client, facts, image).await?;
        Ok(Asked::There)
    }

    /// Asks for a pod and tells the container that holds its namespaces.
    pub(super) async fn ask_pod(&mut self, client: &mut Client, id: &str) -> Result<Asked, End> {
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let answer = match client.pod(id).await? {
            OfOne::Told(answer) => answer,
            OfOne::Nothing => return Ok(Asked::Nothing),
            OfOne::Refused(reason) => return Ok(Asked::Refused(reason)),
            OfOne::Unanswered(reason) => return Ok(self.unanswered(reason)),
        };
        let state = answer.status.as_ref().map_or(0, |it| it.state);
        let Some((pod, own)) = facts::pod(answer, &self.telling).filter(|(pod, _)| pod.id == id) else {
            self.count(|metrics| &metrics.runtime_failures, 1);
            return Ok(Asked::Nothing);
        };
        self.known.insert(pod.id.clone(), Known { state, is_pod: true });
        self.pods.insert(pod.id.clone(), pod);
        self.want_those_without(id);
        match own {
            Some((facts, image)) => self.tell_with_image(client, facts, image).await?,
            None => self.trust(id),
        }
        Ok(Asked::There)
    }

    /// Tells a container, and then its image, which is only kept for one.
    async fn tell_with_image(&mut self, client: &mut Client, mut facts: ContainerFacts, name: ImageName) -> Result<(), End> {
        let (id, container) = (facts.record.id.clone(), facts.record.name.clone());
        let (image, silent) = match self.image(client, &name.0).await? {
            Ok(image) => (image, None),
            Err(reason) => (None, Some(format!("its image: {reason}"))),
        };
        if let Some(image) = &image {
            facts.record.image_id.clone_from(&image.id);
            if facts.record.image_name.is_empty() || facts.record.image_name.starts_with("sha256:") {
                facts.record.image_name.clone_from(&image.name);
            }
        }
        self.tell(Input::Container(Box::new(facts))).await?;
        if let Some(image) = image {
            self.tell(Input::Image(image)).await?;
        }
        match silent {
            Some(reason) => self.doubt(&id, &container, reason),
            None => self.trust(&id),
        }
        Ok(())
    }

    /// An image, if there is one of that name; or why the runtime does not tell of it now.
    async fn image(&mut self, client: &mut Client, name: &str) -> Result<Result<Option<Image>, String>, CriError> {
        if name.is_empty() {
            return Ok(Ok(None));
        }
        let now = Instant::now();
        if let Some((image, _)) = self.images.get(name).filter(|(_, asked)| now.duration_since(*asked) < IMAGE_KEPT) {
            return Ok(Ok(Some(image.clone())));
        }
        // The image store is one for all: while it waits for something, all that use it do.
        if let Some((reason, _)) = self.image_silence.as_ref().filter(|(_, until)| *until > now) {
            return Ok(Err(reason.clone()));
        }
        self.count(|metrics| &metrics.runtime_lookups, 1);
        let answer = match client.image(name).await? {
            OfOne::Told(answer) => answer,
            OfOne::Nothing | OfOne::Refused(_) => return Ok(Ok(None)),
            OfOne::Unanswered(reason) => {
                self.image_silence = Some((reason.clone(), Instant::now() + IMAGES_AGAIN));
                return Ok(Err(reason));
            }
        };
        self.image_silence = None;
        let Some(image) = facts::image(answer, &self.telling.masks) else { return Ok(Ok(None)) };
        if self.images.len() >= IMAGES_MAX {
            self.images.clear();
        }
        self.images.insert(name.to_owned(), (image.clone(), now));
        Ok(Ok(Some(image)))
    }

    /// A container is told: notes whether that is without what its pod has.
    pub(super) fn note_pod_of(&mut self, id: &str, pod: Option<&str>) {
        match pod.filter(|pod| self.pods.get(*pod).is_none_or(|it| it.outlined)) {
            Some(pod) => drop(self.without_pod.insert(id.to_owned(), pod.to_owned())),
            None => drop(self.without_pod.remove(id)),
        }
    }

    /// A pod was told: its containers that were told without it are asked for again, and no others.
    fn want_those_without(&mut self, pod: &str) {
        let mut any = false;
        self.without_pod.retain(|container, of| {
            if of != pod {
                return true;
            }
            if let Some(known) = self.known.get_mut(container) {
                known.state = UNASKED;
                any = true;
            }
            false
        });
        if any {
            self.list_soon();
        }
    }

    /// A question was waited for in vain.
    fn unanswered(&mut self, reason: String) -> Asked {
        self.silent += 1;
        Asked::Unanswered(reason)
    }

    /// The runtime does not tell everything of one now.
    pub(super) fn doubt(&mut self, id: &str, name: &str, reason: String) {
        self.count(|metrics| &metrics.runtime_failures, 1);
        if self.doubts.failed(id, name, reason.clone(), Instant::now()) {
            let runtime = self.telling.runtime.as_str();
            tracing::warn!(
                runtime,
                container = id,
                name,
                reason,
                "the runtime does not tell of this container; it is shown as its list has it"
            );
        }
    }

    /// The runtime told everything of one.
    fn trust(&mut self, id: &str) {
        if self.doubts.answered(id) {
            tracing::info!(runtime = self.telling.runtime, container = id, "the runtime tells of this container again");
        }
    }
}
