//! The operations: parameters in, a call of [`Control`], an answer out. No transport.

mod crls;
mod explain;
mod impact;
mod schedules;
mod sessions;

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use serde_json::Value;

use crate::admin::access_keys;
use crate::admin::action::Action;
use crate::admin::errors::{ApiError, Code};
use crate::admin::params::Params;
use crate::admin::types;
use crate::ca::lifecycle::Status;
use crate::control::lockout::Lockouts;
use crate::control::pace::{MOST_TIME, Pace};
use crate::control::schedule::MOST_AHEAD;
use crate::control::{Back, Caller, Control, ControlError, Door, Manner, PageRequest};

/// What an operation answers with: the body without its request id.
pub type Outcome = Result<Value, ApiError>;

/// Carries out operations; [`Control`] does. The doors know no more of it than this.
pub trait Execute: Send + Sync + 'static {
    /// Carry out the operation.
    fn execute(
        &self,
        caller: Caller,
        action: Action,
        params: Params,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>>;
}

impl Execute for Control {
    fn execute(
        &self,
        caller: Caller,
        action: Action,
        params: Params,
    ) -> Pin<Box<dyn Future<Output = Outcome> + Send>> {
        let control = self.clone();
        Box::pin(async move { execute(&control, &caller, action, &params).await })
    }
}

/// Carry out the operation on behalf of the caller.
///
/// # Errors
/// If a parameter is missing or wrong, or the call is refused or fails.
pub async fn execute(
    control: &Control,
    caller: &Caller,
    action: Action,
    params: &Params,
) -> Outcome {
    let instance = match action.instance_parameter() {
        Some(name) => required(params, name)?,
        None => "",
    };
    let sn = || required(params, "Sn");
    let device = || Ok::<_, ApiError>((required(params, "CaSn")?, required(params, "DeviceSn")?));
    Ok(match action {
        Action::GetRegisterCode => {
            types::register_code(&control.register_code(caller, instance).await?)
        }
        Action::RegisterCaCertificate => {
            let name = required(params, "CaName")?;
            let ca = required(params, "CaContent")?;
            let verification = match (caller.door, params.get("VerificationContent")) {
                (Door::Host | Door::System, None) => None,
                (Door::Http | Door::Mqtt, None) | (_, Some(_)) => {
                    Some(required(params, "VerificationContent")?)
                }
            };
            let lockouts = lockouts(params)?;
            let registered = control.register(caller, instance, name, ca, verification, lockouts);
            types::registered_ca(&registered.await?)
        }
        Action::GetCaCertificate => types::one_ca(control.get_ca(caller, instance, sn()?).await?),
        Action::ListCaCertificate => {
            let page = page(params)?;
            types::cas(control.list_cas(caller, instance, page).await?, page)
        }
        Action::ActiveCaCertificate => {
            let (on, manner) = (Status::Active, Manner::default());
            let switched = control.switch_ca(caller, instance, sn()?, on, manner);
            types::switched_ca(&switched.await?, manner)
        }
        Action::InactivateCaCertificate => {
            let manner = Manner {
                lockouts: lockouts(params)?,
                pace: pace(params)?,
                back: back(params)?,
            };
            let switched = control.switch_ca(caller, instance, sn()?, Status::Inactive, manner);
            let switched = switched.await?;
            let mut answer = types::switched_ca(&switched, manner);
            if let (Some(back), Value::Object(fields)) = (&switched.back, &mut answer) {
                fields.insert("Activation".to_owned(), schedules::shown(back));
            }
            answer
        }
        Action::DeleteCaCertificate => {
            let changed = control.remove_ca(caller, instance, sn()?, lockouts(params)?);
            types::changed_ca(&changed.await?)
        }
        Action::ListDeviceCertificate => {
            let page = page(params)?;
            let devices = control.list_devices(caller, instance, None, page).await?;
            types::devices(devices, page)
        }
        Action::ListDeviceCertificateByCaSn => {
            let ca = Some(required(params, "CaSn")?);
            let page = page(params)?;
            let devices = control.list_devices(caller, instance, ca, page).await?;
            types::devices(devices, page)
        }
        Action::GetDeviceCertificate => {
            let (ca, device) = device()?;
            let shown = control.get_device(caller, instance, ca, device).await;
            types::one_device(shown.map_err(no_device)?)
        }
        Action::ActiveDeviceCertificate => {
            let (ca, device) = device()?;
            let changed = control.set_device_status(caller, instance, ca, device, Status::Active);
            types::changed_device(&changed.await.map_err(no_device)?)
        }
        Action::InactivateDeviceCertificate => {
            let (ca, device) = device()?;
            let changed = control.set_device_status(caller, instance, ca, device, Status::Inactive);
            types::changed_device(&changed.await.map_err(no_device)?)
        }
        Action::DeleteDeviceCertificate => {
            let (ca, device) = device()?;
            let changed = control.delete_device(caller, instance, ca, device);
            types::changed_device(&changed.await.map_err(no_device)?)
        }
        Action::CreateAccessKey => access_keys::create(control, caller, params).await?,
        Action::ListAccessKeys => access_keys::list(control, caller, params).await?,
        Action::UpdateAccessKey => access_keys::update(control, caller, params).await?,
        Action::DeleteAccessKey => access_keys::delete(control, caller, params).await?,
        Action::CloseConnection => sessions::close(control, caller, instance, params).await?,
        Action::QuerySessionByClientId => sessions::query(control, caller, instance, params)?,
        Action::BatchQuerySessionByClientIds => {
            sessions::query_batch(control, caller, instance, params)?
        }
        Action::ListSessions => sessions::list(control, caller, instance, params).await?,
        Action::ListInstances => sessions::instances(control, caller, params)?,
        Action::ImportCrl => crls::import(control, caller, instance, params).await?,
        Action::ListCrls => crls::list(control, caller, instance, params).await?,
        Action::DeleteCrl => crls::delete(control, caller, instance, params).await?,
        Action::SetCrlPolicy => crls::set_policy(control, caller, instance, params).await?,
        Action::ExplainCertificate => explain::explain(control, caller, instance, params).await?,
        Action::PreviewCaCertificateChange => {
            impact::of_ca(control, caller, instance, params).await?
        }
        Action::PreviewDeviceCertificateChange => {
            impact::of_device(control, caller, instance, params).await?
        }
        Action::ScheduleCaCertificateChange => {
            schedules::schedule(control, caller, instance, params).await?
        }
        Action::ListSchedules => schedules::list(control, caller, instance, params).await?,
        Action::CancelSchedule => schedules::cancel(control, caller, instance, params).await?,
    })
}

pub(super) fn required<'a>(params: &'a Params, name: &str) -> Result<&'a str, ApiError> {
    params
        .get(name)
        .filter(|value| !value.is_empty())
        .ok_or_else(|| field(format!("{name} is missing.")))
}

/// `EndConnectionsOverSeconds`, which is ours: how the connections of the CA end.
fn pace(params: &Params) -> Result<Pace, ApiError> {
    let name = "EndConnectionsOverSeconds";
    if params.get(name).is_none() {
        return Ok(Pace::AtOnce);
    }
    let most = usize::try_from(MOST_TIME.as_secs()).unwrap_or(usize::MAX);
    let seconds = u64::try_from(number(params, name, most)?).unwrap_or(u64::MAX);
    Ok(Pace::Over(Duration::from_secs(seconds)))
}

/// `ActivateAfterSeconds`, which is ours: when the CA is switched on again.
fn back(params: &Params) -> Result<Back, ApiError> {
    let name = "ActivateAfterSeconds";
    if params.get(name).is_none() {
        return Ok(Back::Never);
    }
    let most = usize::try_from(MOST_AHEAD.as_secs()).unwrap_or(usize::MAX);
    let seconds = u64::try_from(number(params, name, most)?).unwrap_or(u64::MAX);
    Ok(Back::After(Duration::from_secs(seconds)))
}

/// `Force`, which is ours: whether a change is made that locks administrators out.
fn lockouts(params: &Params) -> Result<Lockouts, ApiError> {
    match params.get("Force") {
        None | Some("false") => Ok(Lockouts::Refuse),
        Some("true") => Ok(Lockouts::Accept),
        Some(_) => Err(field("Force must be true or false.".to_owned())),
    }
}

pub(super) fn page(params: &Params) -> Result<PageRequest, ApiError> {
    Ok(PageRequest {
        number: number(params, "PageNo", 1_000_000_000)?,
        size: number(params, "PageSize", 100)?,
    })
}

/// A decimal number from 1 to `most`.
fn number(params: &Params, name: &str, most: usize) -> Result<usize, ApiError> {
    let text = required(params, name)?;
    Some(text)
        .filter(|text| text.bytes().all(|octet| octet.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .filter(|number| (1..=most).contains(number))
        .ok_or_else(|| field(format!("{name} must be a number from 1 to {most}.")))
}

/// The pages of the operations on one device know no code for its CA.
fn no_device(error: ControlError) -> ApiError {
    match error {
        ControlError::CaNotFound(_) => {
            ApiError::with_detail(Code::FindDeviceBySnError, "(there is no CA with that CaSn)")
        }
        error => error.into(),
    }
}

pub(super) fn field(detail: String) -> ApiError {
    ApiError::with_detail(Code::ParameterFieldCheckFailed, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_numbers_are_checked() {
        let read = |text: &str| page(&Params::decode(text).unwrap()).map_err(|error| error.code);
        let good = PageRequest {
            number: 3,
            size: 100,
        };
        assert_eq!(read("PageNo=3&PageSize=100"), Ok(good));
        for bad in [
            "PageNo=1",
            "PageSize=1",
            "PageNo=0&PageSize=1",
            "PageNo=1&PageSize=0",
            "PageNo=1&PageSize=101",
            "PageNo=-1&PageSize=10",
            "PageNo=%2B1&PageSize=10",
            "PageNo=1.0&PageSize=10",
            "PageNo=99999999999999999999999&PageSize=10",
            "PageNo=&PageSize=10",
        ] {
            assert_eq!(read(bad), Err(Code::ParameterFieldCheckFailed), "{bad}");
        }
    }
}
