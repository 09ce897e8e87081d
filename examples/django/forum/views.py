"""Sign-up with an activation mail, and feedback to the administrators."""

from django import forms
from django.contrib.auth import login
from django.contrib.auth.forms import UserCreationForm
from django.contrib.auth.models import User
from django.contrib.auth.tokens import PasswordResetTokenGenerator
from django.core.mail import EmailMessage, mail_admins
from django.http import HttpResponse
from django.shortcuts import redirect, render
from django.urls import reverse
from django.utils.encoding import force_str
from django.utils.http import urlsafe_base64_decode, urlsafe_base64_encode


class ActivationToken(PasswordResetTokenGenerator):
    """Works once: with the account active it is another one."""

    def _make_hash_value(self, user, timestamp):
        return f"{user.pk}{timestamp}{user.is_active}"


activation = ActivationToken()


class SignUp(UserCreationForm):
    email = forms.EmailField()

    class Meta:
        model = User
        fields = ("username", "email")


class Feedback(forms.Form):
    subject = forms.CharField(max_length=100)
    message = forms.CharField(widget=forms.Textarea)


def page(request, title, form=None, text=""):
    return render(request, "forum/page.html", {"title": title, "form": form, "text": text})


def home(request):
    who = request.user.username or "stranger"
    return page(request, "The Forum", text=f"Hello, {who}.")


def sign_up(request):
    form = SignUp(request.POST or None)
    if not form.is_valid():
        return page(request, "Sign up", form)
    user = form.save(commit=False)
    user.is_active = False
    user.save()
    uid = urlsafe_base64_encode(str(user.pk).encode())
    link = reverse("activate", args=[uid, activation.make_token(user)])
    mail = EmailMessage(to=[user.email])
    # One of mailgate's templates; without this attribute it would be Django's subject and body.
    mail.mailgate = {
        "template": "account_activation",
        "data": {"name": user.username, "url": request.build_absolute_uri(link)},
        "idempotency_key": f"activation-{user.pk}",
    }
    mail.send()
    return page(request, "Thank you", text="Please look into your mailbox.")


def activate(request, uid, token):
    user = User.objects.filter(pk=force_str(urlsafe_base64_decode(uid))).first()
    if user is None or not activation.check_token(user, token):
        return HttpResponse("This link does not work (any more).", status=410)
    user.is_active = True
    user.save()
    login(request, user)
    return redirect("/")


def feedback(request):
    form = Feedback(request.POST or None)
    if not form.is_valid():
        return page(request, "Feedback", form)
    mail_admins(form.cleaned_data["subject"], form.cleaned_data["message"])
    return page(request, "Thank you", text="We have your message.")
