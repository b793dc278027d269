//! `POST /_matrix/client/v3/rooms/{roomId}/receipt/{receiptType}/{eventId}`
//!
//! <https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidreceiptreceipttypeeventid>

use axum::extract::State;
use myelin_accounts::Accounts;
use myelin_data::rooms::ReceiptKind;
use myelin_rooms::{NewReceipt, Rooms, Thread};
use ruma::{
    api::client::receipt::create_receipt::v3::{ReceiptType, Request as Operation, Response},
    events::receipt::ReceiptThread,
};

use super::{read_markers::set_fully_read, refuse_receipt};
use crate::{
    error::{Refusal, Result},
    extract::{Reply, Request},
};

/// Notes how far the caller has read.
pub(crate) async fn set(
    State(rooms): State<Rooms>,
    State(accounts): State<Accounts>,
    request: Request<Operation>,
) -> Result<Reply<Response>> {
    let Request { body, caller, .. } = request;
    let kind = match body.receipt_type {
        ReceiptType::Read => ReceiptKind::Read,
        ReceiptType::ReadPrivate => ReceiptKind::ReadPrivate,
        ReceiptType::FullyRead => {
            if body.thread != ReceiptThread::Unthreaded {
                return Err(Refusal::invalid("A fully-read marker has no thread."));
            }
            set_fully_read(&rooms, &accounts, &caller, &body.room_id, &body.event_id).await?;
            return Ok(Reply(Response::new()));
        }
        other => {
            return Err(Refusal::invalid(format!(
                "There is no receipt type {:?}.",
                other.as_str()
            )));
        }
    };
    let receipt = NewReceipt {
        kind,
        thread: thread(body.thread)?,
        event_id: body.event_id,
    };
    rooms
        .set_receipts(&body.room_id, &caller.user_id, vec![receipt])
        .await
        .map_err(refuse_receipt)?;
    Ok(Reply(Response::new()))
}

fn thread(thread: ReceiptThread) -> Result<Thread> {
    match thread {
        ReceiptThread::Unthreaded => Ok(Thread::Unthreaded),
        ReceiptThread::Main => Ok(Thread::Main),
        ReceiptThread::Thread(root) => Ok(Thread::Root(root)),
        _ => Err(Refusal::invalid("The thread is neither main nor an event id.")),
    }
}
