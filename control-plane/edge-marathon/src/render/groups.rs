//! Groups with what is in them.

use base::Timestamp;
use scheduler::id::PathId;
use scheduler::model::spec::Spec;
use scheduler::{Root, View};

use super::{Embed, app, pods};
use crate::json::Json;

/// What is shown of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GroupEmbed {
    pub(crate) groups: bool,
    pub(crate) apps: bool,
    pub(crate) pods: bool,
    pub(crate) app: Embed,
}

impl Default for GroupEmbed {
    fn default() -> Self {
        GroupEmbed { groups: true, apps: true, pods: true, app: Embed::default() }
    }
}

/// A group of `root`, which may be an older one than the view's.
pub(crate) fn group(json: &mut Json, view: &View, root: &Root, id: &PathId, embed: GroupEmbed, now: Timestamp) {
    let group = root.group(id).unwrap_or_default();
    json.object(|json| {
        json.text_field("id", id.as_str());
        if embed.apps {
            let apps = root.specs_below(id).filter(|(it, _)| it.is_child_of(id)).filter_map(|(_, spec)| spec.app());
            json.array_field("apps", apps, |json, it| app(json, view, it, embed.app, now));
        } else {
            json.array_field("apps", [(); 0], |json, ()| json.null());
        }
        json.texts_field("dependencies", group.dependencies.iter().map(PathId::as_str));
        if embed.groups {
            let groups = root.groups_below(id).filter(|(it, _)| it.is_child_of(id)).map(|(it, _)| it);
            json.array_field("groups", groups, |json, it| self::group(json, view, root, it, embed, now));
        } else {
            json.array_field("groups", [(); 0], |json, ()| json.null());
        }
        if embed.pods {
            let pods = root.specs_below(id).filter(|(it, spec)| it.is_child_of(id) && spec.is_pod()).filter_map(|(_, spec)| spec.pod());
            json.array_field("pods", pods, |json, it| pods::status(json, view, it, now));
        } else {
            json.array_field("pods", [(); 0], |json, ()| json.null());
        }
        json.time_field("version", if id.is_root() { root.version() } else { group.version });
        // Only where it is so: one client knows no such field.
        if group.enforce_role == Some(true) {
            json.bool_field("enforceRole", true);
        }
    });
}

/// All apps below a group.
pub(crate) fn apps_below(json: &mut Json, view: &View, id: &PathId, embed: Embed, now: Timestamp) {
    json.array(view.root.specs_below(id).filter_map(|(_, spec)| spec.app()), |json, it| app(json, view, it, embed, now));
}

/// Whether anything is defined at `id` that is no group.
pub(crate) fn is_spec(root: &Root, id: &PathId) -> bool {
    matches!(root.spec(id), Some(Spec::App(_) | Spec::Pod(_)))
}
