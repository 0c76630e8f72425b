//! What a server serves: services of ours, and what general clients ask of any server.

use std::convert::Infallible;

use proto::control::v1::control_service_server::ControlServiceServer;
use proto::control::v1::topology_service_server::TopologyServiceServer;
use tonic::body::Body;
use tonic::server::NamedService;
use tonic::service::{Routes, RoutesBuilder};
use tonic_health::server::HealthReporter;

use crate::controls::Controls;
use crate::map::Map;
use crate::{Context, REQUEST_BYTES};

/// What any server has.
const GENERAL: [&str; 3] = ["grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

/// Services that are described and whose health is told.
#[derive(Debug)]
pub struct Services {
    routes: RoutesBuilder,
    names: Vec<&'static str>,
}

/// A way to say whether the services can be used. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Serving {
    reporter: HealthReporter,
    names: Vec<&'static str>,
}

impl Services {
    /// The map and the controls.
    pub fn new(context: &Context) -> Self {
        let map = TopologyServiceServer::new(Map::new(context.clone()))
            .max_decoding_message_size(REQUEST_BYTES)
            .max_encoding_message_size(usize::MAX);
        let controls = ControlServiceServer::new(Controls::new(context.clone())).max_decoding_message_size(REQUEST_BYTES);
        Services { routes: Routes::builder(), names: Vec::new() }.with(map).with(controls)
    }

    /// One more, that the descriptors of [`proto::control`] describe.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: tower::Service<http::Request<Body>, Error = Infallible> + NamedService + Clone + Send + Sync + 'static,
        S::Response: axum::response::IntoResponse,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Everything together with health and reflection. Nothing serves until [`Serving::tell`] says so.
    pub async fn into_routes(self) -> (Routes, Serving) {
        let Services { mut routes, names } = self;
        let (reporter, health) = tonic_health::server::health_reporter();
        let serving = Serving { reporter, names };
        serving.tell(false).await;
        routes.add_service(health);
        let described = || {
            let files = tonic_reflection::server::Builder::configure().register_encoded_file_descriptor_set(proto::control::DESCRIPTORS);
            let files = files.register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET);
            // Clients that describe everything ask for these as well, and each version would know itself alone.
            let files = files.register_encoded_file_descriptor_set(tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET);
            let files = files.register_encoded_file_descriptor_set(tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET);
            let names = serving.names.iter().copied().chain(GENERAL);
            names.fold(files, tonic_reflection::server::Builder::with_service_name)
        };
        // They fail on descriptors that are none; ours are made by the build, and a test reads them.
        if let Ok(reflection) = described().build_v1() {
            routes.add_service(reflection);
        }
        if let Ok(reflection) = described().build_v1alpha() {
            routes.add_service(reflection);
        }
        (routes.routes(), serving)
    }
}

impl Serving {
    /// Tells clients of the health service whether to send requests, for each service and for the server as a whole.
    pub async fn tell(&self, serves: bool) {
        use tonic_health::ServingStatus::{NotServing, Serving};
        let status = if serves { Serving } else { NotServing };
        for name in self.names.iter().copied().chain([""]) {
            self.reporter.set_service_status(name, status).await;
        }
    }
}
