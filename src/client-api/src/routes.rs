//! The table of routes: each operation with its paths, who may call it and what it counts towards.
//!
//! Method, paths and kind of authentication come from ruma's description of the operation, so that they are written
//! down once; the limit stands beside it.

use axum::{
    Extension, Router,
    handler::Handler,
    response::IntoResponse,
    routing::{MethodFilter, on},
};
use http::Method;
use ruma::api::{IncomingRequest, path_builder::PathBuilder as _};

use crate::{AppState, Limit, error::Refusal, extract::Identify};

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// Anybody; who is logged in may be shown more.
    Optional,
    /// Somebody who is logged in.
    User,
}

/// One route of the table.
#[derive(Clone, Debug)]
pub struct Route {
    /// The method.
    pub method: Method,
    /// The path, its parameters as `{name}`.
    pub path: &'static str,
    /// Who may call it.
    pub access: Access,
    /// What it counts towards.
    pub limit: Limit,
}

/// Where the state key is empty, clients leave it out, with or without the slash before it.
pub(crate) const STATE_WITHOUT_KEY: [&str; 4] = [
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/v3/rooms/{room_id}/state/{event_type}/",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}",
    "/_matrix/client/r0/rooms/{room_id}/state/{event_type}/",
];

/// Routes under construction.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<AppState>,
    table: Vec<Route>,
}

impl Routes {
    /// No routes.
    pub(crate) fn new() -> Routes {
        Routes::default()
    }

    /// Adds every stable path of the operation `T`.
    #[must_use]
    pub(crate) fn operation<T, H, M>(self, limit: Limit, handler: H) -> Routes
    where
        T: IncomingRequest,
        T::Authentication: Identify,
        H: Handler<M, AppState>,
        M: 'static,
    {
        self.operation_for::<T, H, M>(T::Authentication::ACCESS, limit, handler)
    }

    /// Adds every stable path of the operation `T`, which is open to fewer people here than the specification allows.
    #[must_use]
    pub(crate) fn operation_for<T, H, M>(self, access: Access, limit: Limit, handler: H) -> Routes
    where
        T: IncomingRequest,
        H: Handler<M, AppState>,
        M: 'static,
    {
        T::PATH_BUILDER
            .all_paths()
            .filter(|path| !path.contains("/unstable/"))
            .fold(self, |routes, path| {
                routes.path(&T::METHOD, path, access, limit, handler.clone())
            })
    }

    /// Adds one path by hand, for what ruma does not describe.
    #[must_use]
    pub(crate) fn path<H, M>(
        mut self,
        method: &Method,
        path: &'static str,
        access: Access,
        limit: Limit,
        handler: H,
    ) -> Routes
    where
        H: Handler<M, AppState>,
        M: 'static,
    {
        let filter = MethodFilter::try_from(method.clone())
            .expect("the specification uses only methods that the router knows");
        self.router = self
            .router
            .route(&numbered(path), on(filter, handler).layer(Extension(limit)));
        self.table.push(Route {
            method: method.clone(),
            path,
            access,
            limit,
        });
        self
    }

    /// The router and the table of what it serves. Other paths answer 404, other methods 405, both `M_UNRECOGNIZED`.
    pub(crate) fn finish(self) -> (Router<AppState>, Vec<Route>) {
        let router = self
            .router
            .fallback(async || Refusal::unknown_path().into_response())
            .method_not_allowed_fallback(async || Refusal::wrong_method().into_response());
        (router, self.table)
    }
}

/// The path with its parameters named by their order: the router wants one name where operations have several.
fn numbered(path: &str) -> String {
    let mut next = 0;
    path.split('/')
        .map(|segment| {
            if segment.starts_with('{') {
                next += 1;
                format!("{{p{next}}}")
            } else {
                segment.to_owned()
            }
        })
        .collect::<Vec<_>>()
        .join("/")
}

#[cfg(test)]
mod tests {
    use super::numbered;

    #[test]
    fn parameters_are_named_by_their_order() {
        assert_eq!(numbered("/a/{room_id}/b/{event_id}"), "/a/{p1}/b/{p2}");
        assert_eq!(numbered("/a"), "/a");
    }
}
