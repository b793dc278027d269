//! The table of routes: each operation with its path and whether it must be signed.
//!
//! Method, path and kind of authentication come from ruma's description of the operation, so that they are written down
//! once.

use axum::{
    Router,
    handler::Handler,
    middleware,
    response::IntoResponse,
    routing::{MethodFilter, on},
};
use http::Method;
use myelin_federation::Federation;
use ruma::api::{IncomingRequest, path_builder::PathBuilder as _};

use crate::{
    error::Refusal,
    extract::{Identify, hold_permit},
};

/// Who may call an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Anybody.
    Public,
    /// A server that signs its request.
    Server,
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
}

/// Routes under construction.
#[derive(Default)]
pub(crate) struct Routes {
    router: Router<Federation>,
    table: Vec<Route>,
}

impl Routes {
    /// No routes.
    pub(crate) fn new() -> Routes {
        Routes::default()
    }

    /// Adds every stable path of the operation `T`.
    #[must_use]
    pub(crate) fn operation<T, H, M>(mut self, handler: H) -> Routes
    where
        T: IncomingRequest,
        T::Authentication: Identify,
        H: Handler<M, Federation>,
        M: 'static,
    {
        let filter = MethodFilter::try_from(T::METHOD)
            .expect("the specification uses only methods that the router knows");
        for path in T::PATH_BUILDER
            .all_paths()
            .filter(|path| !path.contains("/unstable/"))
        {
            self.router = self.router.route(path, on(filter, handler.clone()));
            self.table.push(Route {
                method: T::METHOD,
                path,
                access: T::Authentication::ACCESS,
            });
        }
        self
    }

    /// The router and the table of what it serves. Other methods answer 405 `M_UNRECOGNIZED`.
    pub(crate) fn finish(self) -> (Router<Federation>, Vec<Route>) {
        let router = self
            .router
            .route_layer(middleware::from_fn(hold_permit))
            .method_not_allowed_fallback(async || Refusal::wrong_method().into_response());
        (router, self.table)
    }
}
