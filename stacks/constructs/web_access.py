"""Who may use the web app: a Cognito pool with the people who were invited, and what a token may allow.

Nobody registers: the deployment invites one address by mail. A person signs in at Cognito's own page, with a password and the code of an
authenticator, and the browser keeps the tokens: the app's pages never see a password. A name of the pool is the mail address itself, so
that what is done is kept under a name that people know.
"""

from __future__ import annotations

from typing import Final

from aws_cdk import Aws, Duration, RemovalPolicy, Stack
from aws_cdk import aws_cognito as cognito
from constructs import Construct

from schema.settings import Settings, SettingsError
from stacks.constructs.permissions import acknowledge

RESOURCE_SERVER: Final = "papertape"
#: What a token may allow, each a scope of its own: the gateway asks for the first, the function for the others.
SCOPES: Final = {
    "read": "See everything",
    "trade": "Order, cancel, halt and flatten; start runs",
    "approve": "Approve and reject models",
}
READ: Final = f"{RESOURCE_SERVER}/read"
RESERVED = ("aws", "amazon", "cognito")  # words that Cognito takes in no name of a sign-in page


class WebAccess(Construct):
    """The pool, its scopes, and the address of its sign-in page, `sign_in`."""

    def __init__(self, scope: Construct, construct_id: str, *, settings: Settings) -> None:
        super().__init__(scope, construct_id)
        for word in RESERVED:
            if word in settings.name:
                raise SettingsError(f"name = {settings.name!r} is not allowed with [dashboard] enabled: Cognito refuses {word!r} in it")
        self.pool = cognito.UserPool(
            self,
            "Users",
            user_pool_name=settings.name,
            self_sign_up_enabled=False,
            sign_in_aliases=cognito.SignInAliases(username=True),
            sign_in_case_sensitive=False,
            password_policy=cognito.PasswordPolicy(
                min_length=14,
                require_lowercase=True,
                require_uppercase=True,
                require_digits=True,
                require_symbols=True,
                temp_password_validity=Duration.days(7),
            ),
            # Cognito's page offers to set a second factor up only where one is required
            mfa=cognito.Mfa.REQUIRED,
            mfa_second_factor=cognito.MfaSecondFactor(sms=False, otp=True),
            account_recovery=cognito.AccountRecovery.EMAIL_ONLY,
            auto_verify=cognito.AutoVerifiedAttrs(email=True),
            feature_plan=cognito.FeaturePlan.ESSENTIALS,  # refresh tokens that rotate; free for ten thousand users
            user_invitation=cognito.UserInvitationConfig(
                email_subject=f"{settings.name}: your access",
                email_body=(
                    f"You are invited to {settings.name}. Sign in as {{username}} with {{####}} within seven days, at the address that "
                    "the deployment printed (DashboardUrl). You will then choose a password, and set up an authenticator app."
                ),
            ),
            removal_policy=RemovalPolicy.DESTROY,
        )
        for rule in ("COG3", "COG8"):
            acknowledge(
                self.pool,
                f"AwsSolutions-{rule}",
                "threat protection takes the dearest plan; the one user has a second factor, and nobody can register",
            )
        self.scopes = {name: cognito.ResourceServerScope(scope_name=name, scope_description=text) for name, text in SCOPES.items()}
        self.server = self.pool.add_resource_server("Api", identifier=RESOURCE_SERVER, scopes=list(self.scopes.values()))
        prefix = f"{settings.name}-{Aws.ACCOUNT_ID}"  # unique in the region, among all accounts
        self.domain = self.pool.add_domain("SignIn", cognito_domain=cognito.CognitoDomainOptions(domain_prefix=prefix))
        self.sign_in = f"https://{prefix}.auth.{Stack.of(self).region}.amazoncognito.com"
