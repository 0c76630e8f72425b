//! Calls of the gRPC API.

use std::time::Duration;

use edge_grpc::Observer;
use tonic::Code;

use crate::telemetry::Telemetry;

impl Observer for Telemetry {
    fn answered(&self, call: &'static str, code: Code, took: Duration) {
        self.metrics().grpc_calls.with_label_values(&[call, word(code)]).observe(took.as_secs_f64());
    }

    fn streams_open(&self, count: usize) {
        self.metrics().grpc_streams.set(i64::try_from(count).unwrap_or(i64::MAX));
    }
}

/// The word for a code, as gRPC writes it.
fn word(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
