"""The stranger's door: verify, keep, answer."""

from __future__ import annotations

import json

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_http_methods

from svc_infra_django.observability.context import request_id
from svc_infra_django.observability.logging import get_logger
from svc_infra_django.webhooks import verify_webhook_signature

from .models import ReceivedWebhook, Receiver

logger = get_logger("example_project.demo")


@csrf_exempt
@require_http_methods(["GET", "POST"])
def webhooks(request: HttpRequest, slug: str) -> HttpResponse:
    """POST: receive a webhook. GET: the last twenty that were received."""
    receiver = get_object_or_404(Receiver, pk=slug)
    if request.method == "GET":
        return heard(receiver)
    if receiver.is_failing:
        return JsonResponse({"error": "This receiver fails until somebody mends it."}, status=500)
    return receive(receiver, request)


def receive(receiver: Receiver, request: HttpRequest) -> HttpResponse:
    if not verify_webhook_signature(request.body, headers=request.headers, secret=receiver.secret):
        return JsonResponse({"error": "This is not signed with the secret that we share."}, status=401)
    message = json.loads(request.body)
    message_id = request.headers["webhook-id"]
    _, is_new = ReceivedWebhook.objects.get_or_create(
        receiver=receiver,
        message_id=message_id,
        defaults={"event_type": message["type"], "body": message, "request_id": request_id()},
    )
    logger.info("webhook received", receiver=receiver.slug, message_id=message_id, is_new=is_new)
    return HttpResponse(status=204)


def heard(receiver: Receiver) -> HttpResponse:
    newest = receiver.receivedwebhook_set.values("message_id", "event_type", "body", "received_at")[:20]
    return JsonResponse({"is_failing": receiver.is_failing, "received": list(newest)})
