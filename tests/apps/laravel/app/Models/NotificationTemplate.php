<?php

namespace App\Models;

class NotificationTemplate extends CompanyRecord
{
}
