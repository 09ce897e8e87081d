"""Which page is where; logging in and resetting a password are Django's own."""

from django.contrib import admin
from django.urls import include, path

from forum import views

urlpatterns = [
    path("", views.home),
    path("sign-up/", views.sign_up),
    path("activate/<uid>/<token>/", views.activate, name="activate"),
    path("feedback/", views.feedback),
    path("accounts/", include("django.contrib.auth.urls")),  # password_reset/ and the like
    path("admin/", admin.site.urls),
]
