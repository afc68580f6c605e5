<?php

namespace App\Models;

class WebhookEvent extends CompanyRecord
{
}
