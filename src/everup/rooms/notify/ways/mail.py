"""Messages as mail, through a mail server."""

import email.policy
import email.utils
import smtplib
import ssl
import time
from collections.abc import Sequence
from email.message import EmailMessage
from typing import Final

from everup.rooms.notify.actions import Message
from everup.rooms.notify.ways import LaterError, RefusedError

_TIMEOUT_S: Final = 20.0
_TEMPORARY: Final = range(400, 500)


def send(
    server: str, tls: str, login: tuple[str, str] | None, sender: str, to: Sequence[str],
    message: Message,
) -> None:  # fmt: skip
    """Send a mail; blocks, at most some 20 s for each step of the protocol.

    Raises ``RefusedError`` where the server refuses sender, receivers, password or text for good,
    else ``LaterError``.
    """
    host, _, port = server.rpartition(":")
    mail = _mail(sender, to, message)
    try:
        with _connect(host.strip("[]"), int(port), tls) as smtp:
            if login is not None:
                smtp.login(*login)
            smtp.send_message(mail)
    except smtplib.SMTPRecipientsRefused as error:
        codes = [code for code, _ in error.recipients.values()]
        text = f"{server} refuses the receivers: {sorted(error.recipients)}"
        raise _error(text, min(codes, default=550)) from None
    except smtplib.SMTPResponseException as error:
        said = error.smtp_error
        words = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
        raise _error(f"{server} answers {error.smtp_code} {words}", error.smtp_code) from None
    except (smtplib.SMTPException, OSError) as error:
        raise LaterError(f"{server}: {error}") from None


def _connect(host: str, port: int, tls: str) -> smtplib.SMTP:
    context = ssl.create_default_context() if tls != "none" else None
    if tls == "tls":
        return smtplib.SMTP_SSL(host, port, timeout=_TIMEOUT_S, context=context)
    smtp = smtplib.SMTP(host, port, timeout=_TIMEOUT_S)
    if tls == "starttls":
        try:
            smtp.starttls(context=context)
        except BaseException:
            smtp.close()
            raise
    return smtp


def _mail(sender: str, to: Sequence[str], message: Message) -> EmailMessage:
    mail = EmailMessage(policy=email.policy.SMTP)
    mail["From"], mail["To"] = sender, ", ".join(to)
    mail["Subject"] = message.title
    mail["Date"] = email.utils.formatdate(time.time(), localtime=True)
    domain = sender.rpartition("@")[2] or "localhost"
    # The same for the same message: a mail program that gets it twice can tell.
    mail["Message-ID"] = f"<{message.id}@{domain}>"
    mail["Auto-Submitted"] = "auto-generated"  # no replies from absence notices
    incident = message.data.get("incident")
    if incident is not None:  # all of one incident in one thread
        thread = f"<incident-{message.data['node']}-{incident['number']}@{domain}>"
        mail["References"] = mail["In-Reply-To"] = thread
    mail.set_content(message.text)
    return mail


def _error(text: str, code: int) -> Exception:
    return LaterError(text) if code in _TEMPORARY else RefusedError(text)
