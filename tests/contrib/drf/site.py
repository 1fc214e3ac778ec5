"""Views of REST framework, as a project beside the suite's own API would have them."""

from __future__ import annotations

from django.http import Http404
from django.urls import path
from rest_framework import exceptions, serializers
from rest_framework.decorators import api_view, authentication_classes, permission_classes
from rest_framework.permissions import IsAuthenticated
from rest_framework.response import Response
from rest_framework.throttling import BaseThrottle
from rest_framework.views import APIView

from svc_infra_django.contrib.drf import HasPermission, NotDelegated, PrincipalAuthentication
from svc_infra_django.errors import ConflictError


class Suite(APIView):
    authentication_classes = [PrincipalAuthentication]


class Line(serializers.Serializer):
    sku = serializers.CharField(max_length=5)


class Order(serializers.Serializer):
    email = serializers.EmailField()
    lines = Line(many=True)

    def validate(self, data):
        if data["email"] == "nobody@example.com":
            raise serializers.ValidationError("Nobody orders nothing.", code="nobody")
        return data


class Orders(Suite):
    permission_classes = [HasPermission]
    required_permission = {"GET": "auth.view_group", "POST": "auth.add_group"}

    def get(self, request):
        return Response({"user": request.user.username, "method": request.auth.method})

    def post(self, request):
        Order(data=request.data).is_valid(raise_exception=True)
        return Response({}, status=201)

    def put(self, request):
        return Response({})


class Forgotten(Suite):
    permission_classes = [HasPermission]

    def get(self, request):
        return Response({})


class Personal(Suite):
    permission_classes = [NotDelegated]

    def get(self, request):
        return Response({})


class Never(BaseThrottle):
    def allow_request(self, request, view) -> bool:
        return False

    def wait(self) -> float:
        return 6.2


class Throttled(Suite):
    throttle_classes = [Never]


@api_view(["GET"])
@authentication_classes([PrincipalAuthentication])
@permission_classes([IsAuthenticated])
def members(request):
    return Response({})


ERRORS = {
    "conflict": ConflictError,
    "http404": Http404,
    "fault": lambda: RuntimeError("hunter2"),
    "teapot": lambda: type("Teapot", (exceptions.APIException,), {"status_code": 418})("I am one."),
    "denied": exceptions.PermissionDenied,
}


class Raises(Suite):
    def get(self, request, name):
        raise ERRORS[name]()


urlpatterns = [
    path("orders", Orders.as_view()),
    path("forgotten", Forgotten.as_view()),
    path("personal", Personal.as_view()),
    path("throttled", Throttled.as_view()),
    path("members", members),
    path("raises/<name>", Raises.as_view()),
]
